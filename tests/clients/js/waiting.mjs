// Waiting for a condition, in place of sleeping for a guess.

const SECONDS_MAX = 40;
const POLL_MS = 20;

/**
 * Asks until `condition` gives something true, which is returned.
 *
 * @param what names what is waited for, or a function that describes how things stand when it has not come in time.
 */
export async function until(what, condition) {
    const end = Date.now() + SECONDS_MAX * 1000;
    for (;;) {
        const outcome = await condition();
        if (outcome) {
            return outcome;
        }
        if (Date.now() > end) {
            throw new Error(`In ${SECONDS_MAX} s there was not: ${typeof what === "function" ? await what() : what}`);
        }
        await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
}
