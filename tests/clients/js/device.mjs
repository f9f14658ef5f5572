// A device of a user with matrix-js-sdk and its Rust crypto, and what people do with one.

import { createClient, EventType, IndexedDBStore, MatrixError, MsgType, Preset } from "matrix-js-sdk";
import { CryptoEvent, decodeRecoveryKey } from "matrix-js-sdk/lib/crypto-api/index.js";

import { decrypted, encrypted } from "./attachments.mjs";
import { Verification } from "./verification.mjs";
import { until } from "./waiting.mjs";

const ENCRYPTION = { type: EventType.RoomEncryption, state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } };

export class Device {
    /** Takes a client that has not begun; `password` is what the server asks its user for. */
    constructor(password) {
        this.password = password;
        this.recoveryKey = null;
        this.verification = new Verification(this);
        this.incoming = [];
    }

    /**
     * Begins with a session that there is already. A device that was closed goes on where it was.
     *
     * @param session { url, userId, deviceId, token, password }
     */
    static async open({ url, userId, deviceId, token, password }) {
        const device = new Device(password);
        const name = `${userId} ${deviceId}`;
        const store = new IndexedDBStore({ indexedDB, dbName: name });
        device.client = createClient({
            store,
            baseUrl: url,
            userId,
            deviceId,
            accessToken: token,
            timelineSupport: true,
            cryptoCallbacks: { getSecretStorageKey: (request) => device.#secretStorageKey(request) },
            verificationMethods: ["m.sas.v1"],
        });
        await store.startup();
        await device.client.initRustCrypto({ cryptoDatabasePrefix: name });
        device.client.on(CryptoEvent.VerificationRequestReceived, (request) => device.incoming.push(request));
        await device.client.startClient({ initialSyncLimit: 100 });
        await until("a first sync", () => device.client.isInitialSyncComplete());
        return device;
    }

    get crypto() {
        return this.client.getCrypto();
    }

    /** Stops, and remembers up to where it has synced; nothing is signed out. */
    async close() {
        this.client.stopClient();
        await this.client.store.save(true);
    }

    // Rooms

    async createRoom(options = {}) {
        const asked = { preset: Preset.PrivateChat, initial_state: [ENCRYPTION], ...options };
        return (await this.client.createRoom(asked)).room_id;
    }

    async invite(roomId, userId, options = {}) {
        await this.client.invite(roomId, userId, options);
    }

    async join(roomId, via = [], options = {}) {
        await this.client.joinRoom(roomId, { viaServers: via, ...options });
        await this.untilMembers(roomId, [this.client.getUserId()]);
    }

    async leave(roomId) {
        await this.client.leave(roomId);
    }

    async untilInvited(roomId) {
        await until("an invitation", () => this.client.getRoom(roomId)?.getMyMembership() === "invite");
    }

    /** Waits until it knows that all of these are members of an encrypted room. */
    async untilMembers(roomId, userIds) {
        const members = () => this.client.getRoom(roomId)?.getJoinedMembers().map((member) => member.userId) ?? [];
        const isEncrypted = () => this.crypto.isEncryptionEnabledInRoom(roomId);
        await until(
            () => `${userIds} among ${members()}`,
            async () => userIds.every((userId) => members().includes(userId)) && (await isEncrypted()),
        );
    }

    /** Waits until it knows that somebody is not a member any more. */
    async untilGone(roomId, userId) {
        await until(`${userId} gone`, () => !this.client.getRoom(roomId)?.getMember(userId)?.membership?.match("join"));
    }

    // Messages

    async send(roomId, body) {
        return (await this.client.sendTextMessage(roomId, body)).event_id;
    }

    /** The messages that the timeline shows: what they say, or why they cannot be read. */
    async messages(roomId) {
        const events = this.client.getRoom(roomId)?.getLiveTimeline().getEvents() ?? [];
        const sent = events.filter((event) => event.getWireType() === EventType.RoomMessageEncrypted && !event.status);
        return Promise.all(sent.map((event) => this.#message(event)));
    }

    async #message(event) {
        const info = await this.crypto.getEncryptionInfoForEvent(event);
        return {
            event_id: event.getId(),
            sender: event.getSender(),
            body: event.isDecryptionFailure() ? null : (event.getContent().body ?? null),
            failure: event.decryptionFailureReason,
            content: event.getContent(),
            shield: info?.shieldReason ?? null,
        };
    }

    /** Waits until it reads just these messages, in this order; null stands for one that it cannot read. */
    async untilRead(roomId, bodies) {
        const read = async () => JSON.stringify((await this.messages(roomId)).map((message) => message.body));
        const wanted = JSON.stringify(bodies);
        await until(
            async () => `${wanted}, but ${JSON.stringify(await this.messages(roomId))}`,
            async () => (await read()) === wanted,
        );
        return this.messages(roomId);
    }

    /** Loads what was said before. */
    async scrollBack(roomId) {
        await this.client.scrollback(this.client.getRoom(roomId), 100);
    }

    /** Begins a new session of messages in a room, as clients do from time to time. */
    async forgetSession(roomId) {
        await this.crypto.forceDiscardSession(roomId);
    }

    async sessionIds(roomId) {
        const keys = await this.crypto.exportRoomKeys();
        return keys.filter((key) => key.room_id === roomId).map((key) => key.session_id);
    }

    // Devices

    /** The devices of a user as this one knows them, with what it thinks of them. */
    async devicesOf(userId) {
        const known = (await this.crypto.getUserDeviceInfo([userId], true)).get(userId) ?? new Map();
        const found = {};
        for (const deviceId of known.keys()) {
            const status = await this.crypto.getDeviceVerificationStatus(userId, deviceId);
            found[deviceId] = {
                isVerified: status.isVerified(),
                isCrossSigned: status.crossSigningVerified,
                isSignedByOwner: status.signedByOwner,
                isDehydrated: known.get(deviceId).dehydrated ?? false,
            };
        }
        return found;
    }

    async untilDevices(userId, deviceIds) {
        const wanted = JSON.stringify([...deviceIds].sort());
        const known = async () => JSON.stringify(Object.keys(await this.devicesOf(userId)).sort());
        await until(async () => `${wanted}, but ${await known()}`, async () => (await known()) === wanted);
    }

    /** Waits until it knows that a device is signed by its owner. */
    async untilSignedByOwner(userId, deviceId) {
        await this.#untilStatus(userId, deviceId, "signedByOwner");
    }

    /** Waits until it takes a device as verified: by its owner, whom the user has verified. */
    async untilCrossSigned(userId, deviceId) {
        await this.#untilStatus(userId, deviceId, "crossSigningVerified");
    }

    async #untilStatus(userId, deviceId, name) {
        const status = () => this.crypto.getDeviceVerificationStatus(userId, deviceId);
        await until(
            async () => `${name} of ${deviceId}, but ${JSON.stringify(await status())}`,
            async () => (await status())?.[name],
        );
    }

    async isUserVerified(userId) {
        return (await this.crypto.getUserVerificationStatus(userId)).isCrossSigningVerified();
    }

    async untilUserVerified(userId) {
        await until(`${userId} verified`, () => this.isUserVerified(userId));
    }

    async deleteDevice(deviceId) {
        await this.#authenticated((auth) => this.client.deleteDevice(deviceId, auth));
    }

    async logout() {
        await this.client.logout(true);
    }

    // Cross-signing, secret storage, backup

    /** Makes the user's cross-signing keys, or takes them from the secret storage. */
    async bootstrapCrossSigning() {
        await this.crypto.userHasCrossSigningKeys(this.client.getUserId(), true);
        const authUploadDeviceSigningKeys = (request) => this.#authenticated(request);
        await this.crypto.bootstrapCrossSigning({ authUploadDeviceSigningKeys });
    }

    /** Makes a secret storage and a backup; the key to both as people write it down. */
    async bootstrapSecretStorage() {
        const key = await this.crypto.createRecoveryKeyFromPassphrase();
        this.recoveryKey = key.encodedPrivateKey;
        await this.crypto.bootstrapSecretStorage({
            createSecretStorageKey: async () => key,
            setupNewSecretStorage: true,
            setupNewKeyBackup: true,
        });
        return this.recoveryKey;
    }

    /** Takes what somebody has typed from the paper it was written on. */
    async useRecoveryKey(recoveryKey) {
        this.recoveryKey = recoveryKey;
    }

    async isReady() {
        const [crossSigning, secretStorage] = [this.crypto.isCrossSigningReady(), this.crypto.isSecretStorageReady()];
        return { crossSigning: await crossSigning, secretStorage: await secretStorage };
    }

    /** Waits until it has the user's private keys for cross-signing. */
    async untilReady() {
        await until(
            async () => JSON.stringify(await this.crypto.getCrossSigningStatus()),
            () => this.crypto.isCrossSigningReady(),
        );
    }

    async storeSecret(name, value) {
        await this.client.secretStorage.store(name, value);
    }

    async secret(name) {
        await until(`the secret ${name}`, () => this.client.secretStorage.isStored(name));
        return this.client.secretStorage.get(name);
    }

    async restoreBackup() {
        await until("a backup", () => this.crypto.getKeyBackupInfo());
        await this.crypto.loadSessionBackupPrivateKeyFromSecretStorage();
        await this.crypto.checkKeyBackupAndEnable();
        const { imported, total } = await this.crypto.restoreKeyBackup();
        return { imported, total };
    }

    async activeBackup() {
        return this.crypto.getActiveSessionBackupVersion();
    }

    /** Waits until it uses this backup, or knows that its own is not the current one. */
    async untilBackupIs(version) {
        const check = async () => (await this.crypto.checkKeyBackupAndEnable())?.backupInfo.version;
        await until(`the backup ${version}`, async () => (await check()) === version);
    }

    async resetBackup() {
        await this.crypto.resetKeyBackup();
    }

    // Dehydrated devices

    async isDehydrationSupported() {
        return this.crypto.isDehydrationSupported();
    }

    /** Takes the messages of the dehydrated device that there may be, and leaves another in its place; what it did. */
    async startDehydration() {
        const done = [];
        const expected = [CryptoEvent.RehydrationCompleted, CryptoEvent.DehydratedDeviceUploaded];
        const listeners = expected.map((name) => [name, () => done.push(name)]);
        listeners.forEach(([name, listener]) => this.client.on(name, listener));
        await this.crypto.startDehydration();
        listeners.forEach(([name, listener]) => this.client.off(name, listener));
        return done;
    }

    // Media

    async upload(base64, type) {
        const data = new Blob([Buffer.from(base64, "base64")], { type });
        return (await this.client.uploadContent(data, { type, name: "a file" })).content_uri;
    }

    /** A medium as clients show it, with the session; of a size if one is given. */
    async download(uri, width, height) {
        const url = this.client.mxcUrlToHttp(uri, width, height, width && "scale", false, true, true);
        const response = await fetch(url, { headers: { Authorization: `Bearer ${this.client.getAccessToken()}` } });
        const data = Buffer.from(await response.arrayBuffer()).toString("base64");
        return { status: response.status, type: response.headers.get("content-type"), data };
    }

    async sendAttachment(roomId, base64, type) {
        const { data, file } = await encrypted(Buffer.from(base64, "base64"));
        const blob = new Blob([data], { type: "application/octet-stream" });
        const { content_uri: url } = await this.client.uploadContent(blob, { includeFilename: false });
        const content = { msgtype: MsgType.Image, body: "A picture", info: { mimetype: type }, file: { ...file, url } };
        return (await this.client.sendMessage(roomId, content)).event_id;
    }

    /** The bytes of an attachment that it was told of in an encrypted message. */
    async openAttachment(file) {
        const { data } = await this.download(file.url);
        return Buffer.from(await decrypted(Buffer.from(data, "base64"), file)).toString("base64");
    }

    // Verification: see verification.mjs

    async requestVerification(whom) {
        await this.verification.request(whom);
    }

    async acceptVerification() {
        await this.verification.accept();
    }

    async startSas() {
        return this.verification.start();
    }

    async followSas() {
        return this.verification.follow();
    }

    async confirmSas() {
        await this.verification.confirm();
    }

    async rejectSas() {
        return this.verification.reject();
    }

    async untilVerificationCancelled() {
        return this.verification.untilCancelled();
    }

    async #secretStorageKey({ keys }) {
        const [keyId] = Object.keys(keys);
        return this.recoveryKey === null ? null : [keyId, decodeRecoveryKey(this.recoveryKey)];
    }

    /** Makes a request for which the server wants the password again: it says so first. */
    async #authenticated(request) {
        try {
            return await request(null);
        } catch (error) {
            if (!(error instanceof MatrixError) || error.httpStatus !== 401) {
                throw error;
            }
            const identifier = { type: "m.id.user", user: this.client.getUserId() };
            const session = error.data.session;
            return request({ type: "m.login.password", identifier, password: this.password, session });
        }
    }
}
