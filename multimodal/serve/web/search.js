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
      await this.understand(signal);
      await this.load(0, state.asked.order ? ORDERED : FIRST, signal);
    }, true);
  }

  /** The hits after those that are here. */
  async more() {
    if (this.asking || this.isAll || !this.state.answer || this.state.error) return;
    const offset = this.state.hits.length;
    await this.run((signal) => this.load(offset, Math.min(NEXT, MOST - offset), signal), false);
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
  async understand(signal) {
    const { state } = this;
    const { q, store } = state.asked;
    const question = JSON.stringify([q, store]);
    if (question === this.understood) return;
    const told = await get("api/terms", { q, store }, signal);
    if (signal.aborted) return;
    if (told.error && state.parts.length) throw new Refused(told.error, 400, told.position);
    this.understood = told.error ? null : question;
    const parts = inOrder(told.parts, q);
    state.colour(parts);
    Object.assign(state, { parts, series: isSeries(q) ? q.match(/\d+(?=\s*$)/u)[0] : null, suggestions: told.suggestions });
    state.tell("parts");
    if (told.error) throw new Refused(told.error, 400, told.position);
    if (parts.length && parts.every((part) => !part.known)) throw new Unknown();
  }

  async load(offset, k, signal) {
    const { state } = this;
    const answer = await get("api/search", { q: state.asked.q, k, offset, ...state.chosen }, signal);
    if (signal.aborted) return;
    // a writer may have committed between two pages: a picture is shown once
    const here = new Set(offset ? state.hits.map((hit) => hit.id) : []);
    state.hits = [...(offset ? state.hits : []), ...answer.hits.filter((hit) => !here.has(hit.id))];
    state.answer = answer;
    state.version = answer.version ?? "";
    this.isAll = answer.hits.length < k || offset + k >= MOST || k === ORDERED || state.series !== null;
  }
}
