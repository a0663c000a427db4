// Small pictures, many in one reply: a browser asks for six at a time, and to ask costs server and browser more than the picture does. Those on
// the screen come first. What came is kept, and found again by its address, which names the store's version.

import { bytes } from "./api.js";

const MOST = 100; // in one reply
const KEPT = 1000; // pictures, of some kilobytes each
const KINDS = { 0x89: "png", 0x52: "webp", 0: "avif" }; // by the first byte; others are JPEG

export class Thumbnails {
  constructor(state) {
    this.state = state;
    this.kept = new Map(); // address -> data URL, the least recently shown first
    this.lines = [[], []]; // who waits: on the screen, and ahead of it
    this.isServed = [false, false];
  }

  /** Gives an <img> of the searched store its picture, now or when it comes. isAhead: it is not on the screen yet. */
  show(image, id, isAhead) {
    const where = this.state.thumbnail(id);
    const kept = this.kept.get(where);
    if (kept) {
      this.kept.delete(where);
      this.kept.set(where, kept);
      image.src = kept;
      return;
    }
    const line = isAhead ? 1 : 0;
    this.lines[line].push({ image, id, where, store: this.state.asked.store, v: this.state.version });
    if (!this.isServed[line]) this.serve(line);
  }

  async serve(line) {
    this.isServed[line] = true;
    await null; // until all of this frame have come
    while (this.lines[line].length) {
      if (line === 1) await this.quiet();
      const wanted = this.lines[line].filter(({ image }) => image.isConnected); // what was scrolled past is not asked for
      const [first] = wanted;
      const some = wanted.filter((one) => one.store === first.store && one.v === first.v).slice(0, MOST);
      const taken = new Set(some);
      this.lines[line] = wanted.filter((one) => !taken.has(one));
      if (some.length) await this.load(some);
    }
    this.isServed[line] = false;
  }

  /** Until those on the screen are drawn: what is ahead takes no time from them. */
  async quiet() {
    do await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
    while (this.isServed[0]);
  }

  async load(some) {
    const [{ store, v }] = some;
    let pictures;
    try {
      pictures = unpacked(await bytes("api/thumbnails", { ids: some.map(({ id }) => id).join(","), store, v }), some.length);
    } catch {
      pictures = []; // each asks for itself, as <img> does, and shows what is wrong with it
    }
    for (const [at, { image, where }] of some.entries()) {
      if (pictures[at]) this.keep(where, pictures[at]);
      image.src = pictures[at] ?? where;
    }
  }

  keep(where, url) {
    this.kept.set(where, url);
    if (this.kept.size > KEPT) this.kept.delete(this.kept.keys().next().value);
  }
}

/** The reply of /api/thumbnails, the length of each as uint32 and then all of them, as data URLs, or null for none. Object URLs take a browser
 * twice as long. */
function unpacked(reply, num) {
  const view = new DataView(reply);
  const pictures = [];
  let begin = 4 * num;
  for (let at = 0; at < num; at++) {
    const picture = new Uint8Array(reply, begin, view.getUint32(4 * at, true));
    pictures.push(picture.length ? `data:image/${KINDS[picture[0]] ?? "jpeg"};base64,${base64(picture)}` : null);
    begin += picture.length;
  }
  return pictures;
}

function base64(picture) {
  let text = "";
  for (let at = 0; at < picture.length; at += 8192) text += String.fromCharCode(...picture.subarray(at, at + 8192));
  return btoa(text);
}
