// The server's answers as JSON. An answer that is an error is thrown as `Refused`, with the server's own words.

/** By status: too busy (429), or too slow (503), as a server that has just begun is. A query that is too slow again is told. */
const TRIES = { 429: 4, 503: 3 };

export class Refused extends Error {
  /** position: the character of the query or filter that is wrong, from 0, or null. */
  constructor(message, status, position = null) {
    super(message);
    this.status = status;
    this.position = position;
  }
}

export function get(path, params = {}, signal = undefined) {
  return ask(address(path, params), { signal });
}

/** The answer as an ArrayBuffer. */
export function bytes(path, params = {}, signal = undefined) {
  return ask(address(path, params), { signal }, "arrayBuffer");
}

export function post(path, body, params = {}, signal = undefined) {
  const is_bytes = body instanceof Blob;
  const headers = { "Content-Type": is_bytes ? body.type || "application/octet-stream" : "application/json" };
  return ask(address(path, params), { method: "POST", headers, body: is_bytes ? body : JSON.stringify(body), signal });
}

export function remove(path, params = {}) {
  return ask(address(path, params), { method: "DELETE" });
}

/** A path relative to the page, with what is not empty of params. */
export function address(path, params = {}) {
  const given = Object.entries(params).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

/** read: what the answer is read as, a method of Response. */
async function ask(where, request, read = "json") {
  for (let attempt = 1; ; attempt++) {
    try {
      const reply = await fetch(where, request);
      if (reply.ok) return await reply[read]();
      if (attempt < (TRIES[reply.status] ?? 1)) { // the server says when to come again
        await pause(1000 * Math.min(5, Number(reply.headers.get("Retry-After")) || 1), request.signal);
        continue;
      }
      const told = await reply.json().catch(() => null);
      throw new Refused(told?.error ?? told?.detail ?? `the server answered ${reply.status}`, reply.status, told?.position ?? null);
    } catch (error) {
      if (error.name === "AbortError" || error instanceof Refused) throw error;
      throw new Refused("The server does not answer. Is it still running?", 0);
    }
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });
}
