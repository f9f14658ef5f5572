// A verification that a device takes part in: two people compare emoji.
//
// https://spec.matrix.org/v1.19/client-server-api/#short-authentication-string-sas-verification

import { VerificationPhase, VerifierEvent } from "matrix-js-sdk/lib/crypto-api/index.js";

import { until } from "./waiting.mjs";

export class Verification {
    #device;
    #request = null;
    #sas = null;
    #outcome = null;

    constructor(device) {
        this.#device = device;
    }

    /**
     * Asks somebody to verify: the user's own other devices, one device, or a user in a room.
     *
     * @param whom { userId, deviceId, roomId }, of which all may be missing
     */
    async request({ userId, deviceId, roomId }) {
        const crypto = this.#device.crypto;
        if (roomId) {
            this.#request = await crypto.requestVerificationDM(userId, roomId);
        } else if (deviceId) {
            this.#request = await crypto.requestDeviceVerification(userId, deviceId);
        } else {
            this.#request = await crypto.requestOwnUserVerification();
        }
    }

    /** Waits to be asked, and accepts. */
    async accept() {
        this.#request = await until("a request to verify", () => this.#device.incoming.shift());
        await this.#request.accept();
    }

    /** Begins to compare when the other side has accepted; the emoji that are shown. */
    async start() {
        await this.#untilPhase(VerificationPhase.Ready);
        return this.#compare(await this.#request.startVerification("m.sas.v1"));
    }

    /** Compares when the other side has begun to; the emoji that are shown. */
    async follow() {
        await this.#untilPhase(VerificationPhase.Started);
        return this.#compare(await until("a verifier", () => this.#request.verifier));
    }

    /** Says that both sides show the same, and waits until the other side has said so too. */
    async confirm() {
        await this.#sas.confirm();
        await this.#outcome;
        await this.#untilPhase(VerificationPhase.Done);
    }

    /** Says that the other side shows something else. */
    async reject() {
        this.#sas.mismatch();
        await this.untilCancelled();
    }

    /** Waits until one side has given up; the code that says why. */
    async untilCancelled() {
        await this.#untilPhase(VerificationPhase.Cancelled);
        return this.#request.cancellationCode;
    }

    async #compare(verifier) {
        this.#sas = null;
        verifier.on(VerifierEvent.ShowSas, (sas) => (this.#sas = sas));
        this.#outcome = verifier.verify();
        // Whether it fails is asked for in `confirm`; one who only rejects does not ask.
        this.#outcome.catch(() => {});
        this.#sas = await until("emoji", () => this.#sas ?? verifier.getShowSasCallbacks());
        return this.#sas.sas.emoji.map(([symbol]) => symbol);
    }

    async #untilPhase(phase) {
        const request = this.#request;
        await until(
            () => `${VerificationPhase[phase]}, but ${VerificationPhase[request.phase]} ${request.cancellationCode}`,
            () => request.phase === phase,
        );
    }
}
