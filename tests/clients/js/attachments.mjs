// Files that are encrypted before they are uploaded; the library leaves that to those who use it.
//
// https://spec.matrix.org/v1.19/client-server-api/#sending-encrypted-attachments

import { webcrypto } from "node:crypto";

const { subtle } = webcrypto;
const ALGORITHM = "AES-CTR";
const COUNTER_BITS = 64;

/** Encrypts bytes with a new key; what to upload, and the `file` of the message but for its URL. */
export async function encrypted(plaintext) {
    const counter = new Uint8Array(16);
    webcrypto.getRandomValues(counter.subarray(0, 8));
    const key = await subtle.generateKey({ name: ALGORITHM, length: 256 }, true, ["encrypt", "decrypt"]);
    const data = await subtle.encrypt({ name: ALGORITHM, counter, length: COUNTER_BITS }, key, plaintext);
    const { k, key_ops, kty } = await subtle.exportKey("jwk", key);
    const file = {
        v: "v2",
        key: { alg: "A256CTR", ext: true, k, key_ops, kty },
        iv: unpadded(counter),
        hashes: { sha256: await sha256(data) },
    };
    return { data, file };
}

/** The bytes that were encrypted so. */
export async function decrypted(data, file) {
    if ((await sha256(data)) !== file.hashes.sha256) {
        throw new Error("These are other bytes than those that were sent");
    }
    const key = await subtle.importKey("jwk", file.key, { name: ALGORITHM }, false, ["decrypt"]);
    const counter = Buffer.from(file.iv, "base64");
    return subtle.decrypt({ name: ALGORITHM, counter, length: COUNTER_BITS }, key, data);
}

async function sha256(data) {
    return unpadded(await subtle.digest("SHA-256", data));
}

function unpadded(data) {
    return Buffer.from(data).toString("base64").replace(/=+$/, "");
}
