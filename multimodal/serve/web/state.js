// What the page shows, and its address: one truth for all modules, which listen to what they need.
//
//     state.ask({ q: "dog + beach" })                    the address and everything else follow
//     state.addEventListener("answer", draw)
//
// Events: "asked" (the address), "store" (its record came), "parts" (the query's terms), "answer" (hits, also more of them), "selected",
// "judged", "picture" (one is open, or none), "theme", "error".

import { address } from "./api.js";

/** The names in an address; the same in the API and, with dashes, on the command line. */
export const NAMES = ["q", "where", "order", "cut_off", "fold", "store", "fusion", "view", "columns"];

const ONE_EDIT_MS = 3000;

class State extends EventTarget {
  constructor() {
    super();
    this.asked = read(location);
    this.stores = [];
    this.parts = [];
    this.series = null;
    this.version = ""; // of the store, so that its pictures are fetched once
    this.answer = null;
    this.hits = [];
    this.error = null;
    this.isUnknown = false; // whether the store knows nothing of the query
    this.isStale = false; // whether the hits are those of an earlier query, since this one cannot be searched
    this.busy = false;
    this.selected = new Set();
    this.judged = new Map();
    this.hues = new Map();
    this.uploads = new Map(); // content of a picture that was dropped here -> its address in this browser
    this.picture = pictureOf(location);
    addEventListener("popstate", () => {
      const before = this.asked;
      this.asked = read(location);
      this.picture = pictureOf(location);
      if (NAMES.some((name) => before[name] !== this.asked[name])) this.tell("asked", { by: "history" });
      this.tell("picture");
    });
  }

  /** The record of the store that is searched, or null before it came. */
  get store() {
    return this.stores.find((store) => store.name === this.asked.store) ?? this.stores[0] ?? null;
  }

  /** Change the address. push: a step that Back undoes; without it the present one changes, as while somebody types. by: who changed it. */
  ask(patch, { push = true, by = null } = {}) {
    const asked = { ...this.asked, ...patch };
    if (NAMES.every((name) => asked[name] === this.asked[name])) return;
    this.asked = asked;
    const where = address("./", asked);
    push ? history.pushState(null, "", where) : history.replaceState(null, "", where);
    document.title = asked.q || "Search pictures in words";
    this.tell("asked", { by });
  }

  /** Open a picture large; Back closes it. null closes it. */
  open(id) {
    const isOpen = this.picture !== null;
    if (id === null) {
      if (isOpen && history.state?.opened) return history.back();
      this.picture = null;
      history.replaceState(null, "", address("./", this.asked));
    } else {
      this.picture = id;
      const where = `${address("./", this.asked)}#picture=${id}`;
      isOpen ? history.replaceState(history.state, "", where) : history.pushState({ opened: true }, "", where);
    }
    this.tell("picture");
  }

  /** Whether a change begins a new step of the history: it is of another thing than the last one, or that was some seconds ago. */
  isNewEdit(thing) {
    const { thing: last, at } = this.edited ?? {};
    const now = performance.now();
    this.edited = { thing, at: now };
    return thing !== last || now - at > ONE_EDIT_MS;
  }

  select(ids) {
    this.selected = new Set(ids);
    this.tell("selected");
  }

  thumbnail(id, store = this.asked.store) {
    return address(`thumbnails/${id}`, { store, v: store === this.asked.store ? this.version : "" });
  }

  /** The address of a hit's small picture: the file itself where a store keeps no thumbnails, null where there is neither. */
  small(hit, store = this.asked.store) {
    if (hit.has_thumbnail) return this.thumbnail(hit.id, store);
    const record = this.stores.find(({ name }) => name === store) ?? this.store;
    return record?.has_files ? address(`image/${hit.id}`, { store }) : null;
  }

  /** What every question to the server about pictures has in common. */
  get chosen() {
    const { where, order, cut_off, fold, store, fusion } = this.asked;
    return { where, order, cut_off, fold, store, fusion };
  }

  /** A term keeps its colour for as long as it is in the query; a new one gets the first that is free. */
  colour(parts) {
    const kept = new Map();
    const taken = new Set();
    for (const part of parts) {
      const hue = this.hues.get(part.label);
      if (hue !== undefined && !taken.has(hue)) kept.set(part.label, hue), taken.add(hue);
    }
    for (const part of parts) {
      if (kept.has(part.label)) continue;
      let hue = 0;
      while (taken.has(hue) && hue < 7) hue++;
      kept.set(part.label, hue), taken.add(hue);
    }
    this.hues = kept;
  }

  /** The class that colours a term, by what an answer or a part calls it. */
  hue(label) {
    if (label.startsWith("without ") || label.startsWith("- ")) return "hue-minus";
    return `hue-${this.hues.get(label) ?? this.hues.get(label.split(" instead of ")[0]) ?? 0}`;
  }

  tell(what, detail = {}) {
    this.dispatchEvent(new CustomEvent(what, { detail }));
  }
}

function read(place) {
  const given = new URLSearchParams(place.search);
  return Object.fromEntries(NAMES.map((name) => [name, given.get(name) ?? ""]));
}

function pictureOf(place) {
  const found = /^#picture=(\d+)$/.exec(place.hash);
  return found ? Number(found[1]) : null;
}

export const state = new State();
