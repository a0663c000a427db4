// The server's answers as JSON. An answer that is an error is thrown as `Refused`, with the server's own words.

const TRIES = 4;

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

/** What is no JSON, as an ArrayBuffer. */
export async function bytes(path, params = {}, signal = undefined) {
  return (await answered(address(path, params), { signal })).arrayBuffer();
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

async function ask(where, request) {
  const reply = await answered(where, request);
  return reply.status === 204 ? null : reply.json().catch(() => null);
}

/** The reply, if it is no error; a busy server is asked again. */
async function answered(where, request) {
  for (let attempt = 1; ; attempt++) {
    let reply;
    try {
      reply = await fetch(where, request);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refused("The server does not answer. Is it still running?", 0);
    }
    if (reply.status === 429 && attempt < TRIES) { // busy: the server says when to come again
      await pause(1000 * Math.min(5, Number(reply.headers.get("Retry-After")) || 1), request.signal);
      continue;
    }
    if (reply.ok) return reply;
    const told = await reply.json().catch(() => null);
    throw new Refused(told?.error ?? told?.detail ?? `the server answered ${reply.status}`, reply.status, told?.position ?? null);
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });
}
