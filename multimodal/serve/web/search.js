// Asking the server: what the query means, then its hits. One question at a time, the newest; a later one ends the one before, so no stale answer is
// ever shown. A query that does not parse, as while somebody types, is not searched: its hits stay those of the last one that did.

import { Refused, get } from "./api.js";
import { inOrder, isSeries } from "./query.js";

const FIRST = 60;
const NEXT = 120;
const MOST = 10_000;
const ORDERED = 1000; // an order is one of the best so many: they come together

/** Nothing of the query is known here, which its chips say with what to do. */
class Unknown extends Error {}

export class Search {
  constructor(state) {
    this.state = state;
    this.asking = null;
    this.asked = null;
    this.understood = null;
    this.isAll = false;
    state.addEventListener("asked", () => this.ask());
    state.addEventListener("retry", () => this.ask());
  }

  /** The hits of the address, unless they are here. */
  async ask() {
    const { state } = this;
    const question = JSON.stringify({ q: state.asked.q, ...state.chosen });
    if (question === this.asked) return;
    this.asked = question;
    this.asking?.abort();
    if (!state.asked.q.trim()) {
      this.asking = this.understood = null;
      Object.assign(state, { answer: null, hits: [], error: null, isUnknown: false, isStale: false, busy: false, parts: [], series: null, suggestions: [] });
      state.tell("parts");
      state.tell("error");
      return state.tell("answer", { isNew: true });
    }
    await this.run(async (signal) => {
      const k = state.asked.order ? ORDERED : FIRST;
      const { q, store } = state.asked;
      if (JSON.stringify([q, store]) === this.understood) return this.take(0, await this.find(0, k, signal));
      const { terms, found } = await get("api/typed", { q, k, ...state.chosen }, signal);
      signal.throwIfAborted();
      this.understand(terms);
      this.take(0, { answer: found, k });
    }, true);
  }

  /** The hits after those that are here. */
  async more() {
    if (this.asking || this.isAll || !this.state.answer || this.state.error) return;
    const offset = this.state.hits.length;
    await this.run(async (signal) => this.take(offset, await this.find(offset, Math.min(NEXT, MOST - offset), signal)), false);
  }

  async run(work, isNew) {
    const { state } = this;
    const asking = (this.asking = new AbortController());
    state.busy = true;
    state.tell("busy");
    try {
      await work(asking.signal);
      Object.assign(state, { error: null, isUnknown: false, isStale: false });
    } catch (error) {
      if (error.name === "AbortError" || this.asking !== asking) return;
      state.isUnknown = error instanceof Unknown;
      state.error = state.isUnknown ? null : error;
      state.isStale = true;
      if (isNew) this.asked = null;
    }
    if (this.asking !== asking) return;
    this.asking = null;
    state.busy = false;
    state.tell("error");
    if (!state.isStale) state.tell("answer", { isNew });
    state.tell("busy");
  }

  /** The query's terms, for chips and suggestions. */
  understand(terms) {
    const { state } = this;
    const { q, store } = state.asked;
    if (terms.error && state.parts.length) throw new Refused(terms.error, 400, terms.position);
    this.understood = terms.error ? null : JSON.stringify([q, store]);
    const parts = inOrder(terms.parts, q);
    state.colour(parts);
    Object.assign(state, { parts, series: isSeries(q) ? q.match(/\d+(?=\s*$)/u)[0] : null, suggestions: terms.suggestions });
    state.tell("parts");
    if (terms.error) throw new Refused(terms.error, 400, terms.position);
    if (parts.length && parts.every((part) => !part.known)) throw new Unknown();
  }

  /** An answer, and how many hits were asked for. */
  async find(offset, k, signal) {
    const answer = await get("api/search", { q: this.state.asked.q, k, offset, ...this.state.chosen }, signal);
    signal.throwIfAborted();
    return { answer, k };
  }

  take(offset, { answer, k }) {
    const { state } = this;
    // a writer may have committed between two pages: a picture is shown once
    const here = new Set(offset ? state.hits.map((hit) => hit.id) : []);
    state.hits = [...(offset ? state.hits : []), ...answer.hits.filter((hit) => !here.has(hit.id))];
    state.answer = answer;
    state.version = answer.version ?? "";
    this.isAll = answer.hits.length < k || offset + k >= MOST || k === ORDERED || state.series !== null;
  }
}
