// Devices that are driven over stdin and stdout.
//
// Each line of stdin is a call, {"id", "device", "method", "args"}, each line of stdout its outcome, {"id", "result"}
// or {"id", "error"}. The method `open` makes a device, `passTime` lets waiting times of all devices pass at once, all
// others are methods of `Device`. Calls run side by side. Whatever is logged goes to stderr. The program ends when
// stdin does.

import { createInterface } from "node:readline";

for (const level of ["debug", "info", "log", "trace", "warn"]) {
    console[level] = console.error;
}
// The library is made for Node 22; of all that, this is what it misses in Node 20.
Promise.withResolvers ??= function withResolvers() {
    let resolve, reject;
    const promise = new this((fulfil, fail) => ([resolve, reject] = [fulfil, fail]));
    return { promise, resolve, reject };
};
// Waits that are drawn by lot, such as those before keys are backed up, are the shortest.
Math.random = () => 0;
// What keeps keys in a browser; it is loaded before the library that looks for it.
await import("fake-indexeddb/auto");
const { Device } = await import("./device.mjs");

const devices = new Map();
const now = performance.now.bind(performance);
let aheadMs = 0;
performance.now = () => now() + aheadMs;

async function call({ device, method, args }) {
    switch (method) {
        case "open":
            devices.set(device, await Device.open(...args));
            return null;
        case "passTime":
            aheadMs += args[0];
            return null;
        default:
            return devices.get(device)[method](...args);
    }
}

function answer(message) {
    process.stdout.write(JSON.stringify(message) + "\n");
}

process.on("unhandledRejection", (error) => console.error("Nobody waits for this failure:", error));

createInterface({ input: process.stdin })
    .on("line", (line) => {
        const request = JSON.parse(line);
        call(request).then(
            (result) => answer({ id: request.id, result: result ?? null }),
            (error) => answer({ id: request.id, error: error?.stack ?? String(error) }),
        );
    })
    .on("close", () => process.exit(0));
