// The hits as an endless contact sheet: only what is on the screen, and a little around it, is in the document. A picture that stays between two
// answers keeps its element and glides to its new place.

import { address } from "./api.js";
import { el, keep, kept, small, svg } from "./dom.js";
import { aspectOf, layout, step, visible } from "./layout.js";
import { Thumbnails } from "./thumbnails.js";
import { reasons } from "./query.js";

const AHEAD = 0.8; // screens around the visible one that are drawn
const EARLY = 2; // screens before the end at which more is asked for
const MAX_WAITING = 24; // grey tiles while more comes
const ARROWS = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"];
const SIZES = { small: [110, 0.9], middle: [190, 1.5], large: [320, 2.4] }; // pixels, and times the longer side of a thumbnail
const NARROW = { small: 0.22, middle: 0.34, large: 0.62 }; // of a narrow screen's width
const MANY_PX = 256; // of a thumbnail, until one is here

export class Grid {
  constructor(state, search) {
    this.state = state;
    this.search = search;
    this.thumbnails = new Thumbnails(state);
    this.box = document.getElementById("hits");
    this.list = null;
    this.tiles = new Map(); // id -> element
    this.hitOf = new WeakMap(); // element -> hit
    this.plan = { rows: [], boxes: [], height: 0 };
    this.at = 0; // the tile that Tab reaches
    this.frame = 0;
    this.size = Object.keys(SIZES).find((name) => name === kept("size")) ?? "middle";
    this.thumbnailPx = Number(kept(`thumbnail ${state.asked.store}`)) || 0;
    this.shapes = new Map(); // id -> width over height, learned

    state.addEventListener("answer", ({ detail }) => this.fill(detail.isNew));
    state.addEventListener("error", () => this.list?.classList.toggle("stale", state.isStale));
    state.addEventListener("busy", () => this.list?.setAttribute("aria-busy", String(state.busy)));
    state.addEventListener("parts", () => this.redraw());
    state.addEventListener("judged", () => this.redraw());
    state.addEventListener("selected", () => this.redraw());
    addEventListener("scroll", () => this.later(), { passive: true });
    new ResizeObserver(([{ contentRect }]) => {
      if (contentRect.width !== this.width) this.arrange();
    }).observe(this.box);
    this.box.addEventListener("load", ({ target }) => this.learn(target), true);
    this.box.addEventListener("keydown", (event) => this.key(event));
    this.box.addEventListener("click", (event) => this.click(event));
    this.box.addEventListener("focusin", ({ target }) => {
      const tile = target.closest(".tile");
      if (tile) this.at = Number(tile.dataset.at);
    });
  }

  /** A store's thumbnails are as large as each other; and the shape of a picture whose size no column has is known once it is here. */
  learn(image) {
    const tile = image.closest(".tile");
    const hit = this.hitOf.get(tile);
    if (!hit) return;
    const longest = Math.max(image.naturalWidth, image.naturalHeight);
    const isLarger = hit.has_thumbnail && longest > this.thumbnailPx;
    if (isLarger) {
      this.thumbnailPx = longest;
      keep(`thumbnail ${this.state.asked.store}`, longest);
    }
    if (!hit.width) this.shapes.set(hit.id, image.naturalWidth / image.naturalHeight);
    if (hit.width && !isLarger) return;
    clearTimeout(this.learning);
    this.learning = setTimeout(() => this.arrange(true), 60);
  }

  /** How high rows are: pictures are not enlarged far beyond the pixels that they have. */
  get target() {
    const [most, times] = SIZES[this.size];
    return Math.round(Math.min(most, times * (this.thumbnailPx || MANY_PX), this.width < 560 ? this.width * NARROW[this.size] : most));
  }

  setSize(size) {
    this.size = size;
    keep("size", size);
    this.arrange();
  }

  /** New hits, or more of them. */
  fill(isNew) {
    const { state } = this;
    if (!state.asked.q.trim()) {
      this.list?.remove();
      this.list = null;
      this.tiles.clear();
      this.box.replaceChildren();
      return;
    }
    if (!this.list) {
      this.list = el("ol", { class: "sheet", role: "list", "aria-label": "Pictures found" });
      this.tiles.clear();
      this.box.replaceChildren(this.list); // the server's cards, if any, go
    }
    if (isNew) {
      this.at = 0;
      const top = this.box.getBoundingClientRect().top + scrollY - stickyHeight();
      if (scrollY > top) scrollTo({ top, behavior: "instant" });
    }
    this.arrange();
    this.list.dataset.query = state.answer?.query ?? ""; // which answer is drawn: for whoever waits for it
  }

  /** Where each picture is. isLearned: only if the shapes are others than when it was last computed. */
  arrange(isLearned = false) {
    if (!this.list) return;
    const { hits } = this.state;
    this.width = this.box.clientWidth;
    if (!this.width) return; // another view is shown
    const waiting = this.search.isAll || !hits.length ? 0 : Math.min(MAX_WAITING, hits.length);
    const aspects = [...hits.map((hit) => aspectOf(hit, this.shapes.get(hit.id))), ...Array(waiting).fill(1.4)];
    const given = JSON.stringify([this.target, this.width, aspects]);
    if (isLearned && given === this.given) return;
    this.given = given;
    keep("row", this.target); // for early.js
    this.plan = layout(aspects, this.width, this.target, 0);
    this.list.style.height = `${this.plan.height}px`;
    this.draw();
  }

  later() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.draw();
    });
  }

  redraw() {
    for (const tile of this.tiles.values()) tile.dataset.for = "";
    if (this.list) this.draw();
  }

  draw() {
    if (!this.list || this.box.offsetParent === null) return;
    const { hits } = this.state;
    const top = -this.list.getBoundingClientRect().top;
    const [first, last] = visible(this.plan.rows, top - AHEAD * innerHeight, top + (1 + AHEAD) * innerHeight, 0);
    const shown = new Set();
    const order = [];
    for (const row of this.plan.rows.slice(first, last)) {
      const isAhead = row.top > top + innerHeight || row.top + row.height < top;
      for (let at = row.from; at < row.to; at++) {
        const hit = hits[at];
        const id = hit?.id ?? `waiting-${at}`;
        shown.add(id);
        let tile = this.tiles.get(id);
        const isNew = !tile;
        if (isNew) {
          tile = hit ? this.tile(hit, isAhead) : el("li", { class: "tile waiting", "aria-hidden": "true" });
          this.tiles.set(id, tile);
        }
        if (hit) this.dress(tile, hit, at);
        const { left, width } = this.plan.boxes[at];
        tile.style.transform = `translate(${left}px, ${row.top}px)`;
        tile.style.width = `${width}px`;
        tile.style.height = `${row.height}px`;
        order.push(tile);
      }
    }
    for (const [id, tile] of this.tiles) {
      if (shown.has(id) || tile.contains(document.activeElement)) continue;
      tile.remove();
      this.tiles.delete(id);
    }
    // in the document in the order of the list, for Tab and for readers; moving an element would stop its transition, so only what is amiss moves
    let before = this.list.firstChild;
    for (const tile of order) {
      if (tile === before) before = before.nextSibling;
      else this.list.insertBefore(tile, before);
    }
    if (hits.length && this.plan.height - top - innerHeight < EARLY * innerHeight) this.search.more();
  }

  tile(hit, isAhead) {
    const shown = { decoding: "async", draggable: "false" };
    const image = hit.has_thumbnail ? el("img", { alt: "", ...shown }) : small(this.state.small(hit), hit.text || hit.name, shown);
    if (hit.has_thumbnail) this.thumbnails.show(image, hit.id, isAhead);
    const link = el(
      "a",
      { class: "open", href: address("./", { q: `image:${hit.id}`, store: this.state.asked.store }), tabindex: -1, draggable: "true" },
      image,
      el("span", { class: "caption" }),
    );
    link.addEventListener("dragstart", (event) => {
      event.dataTransfer.setData("application/x-hit", String(hit.id));
      event.dataTransfer.setData("text/plain", `image:${hit.id}`);
    });
    return el("li", { class: "tile", data: { id: hit.id } }, link, el("span", { class: "strip", "aria-hidden": "true" }), el("span", { class: "marks" }));
  }

  /** What a tile says of its hit in this answer. */
  dress(tile, hit, at) {
    const { state } = this;
    tile.dataset.at = at;
    this.hitOf.set(tile, hit);
    const link = tile.firstChild;
    link.tabIndex = at === this.at ? 0 : -1;
    const same = `${hit.rank} ${hit.score} ${at}`;
    if (tile.dataset.for === same) return;
    tile.dataset.for = same;
    tile.setAttribute("aria-setsize", state.answer?.num_found ?? -1);
    tile.setAttribute("aria-posinset", at + 1);
    const words = hit.text || hit.name;
    const judged = state.judged.get(hit.id);
    link.setAttribute("aria-label", `${hit.rank}: ${words}${hit.like.length ? `, and ${hit.like.length} like it` : ""}${judged === undefined ? "" : judged ? ", judged yes" : ", judged no"}`);
    link.querySelector(".caption").textContent = words;
    tile.children[1].replaceChildren(...strip(hit, state));
    tile.classList.toggle("selected", state.selected.has(hit.id));
    tile.children[2].replaceChildren(
      ...(hit.like.length ? [el("span", { class: "like", title: `${hit.like.length} nearly equal pictures are folded into this one` }, `+${hit.like.length}`)] : []),
      ...(judged === undefined ? [] : [el("span", { class: `judged ${judged ? "yes" : "no"}` }, judged ? "✓" : "✗")]),
    );
  }

  click(event) {
    const tile = event.target.closest(".tile");
    if (!tile?.dataset.id || event.metaKey || event.ctrlKey || event.shiftKey) return; // a new tab searches the picture
    event.preventDefault();
    this.at = Number(tile.dataset.at);
    this.state.open(Number(tile.dataset.id));
  }

  key(event) {
    if (!ARROWS.includes(event.key) || event.altKey || event.ctrlKey || event.metaKey || !this.state.hits.length) return;
    event.preventDefault();
    const last = this.state.hits.length - 1;
    this.focus(Math.min(last, step(event.key, Math.min(this.at, last), this.plan)));
  }

  /** Put the focus on a tile, and scroll to it. */
  focus(at = this.at) {
    if (!this.list || !this.state.hits.length) return;
    this.at = Math.min(at, this.state.hits.length - 1);
    const row = this.plan.rows.find(({ from, to }) => from <= this.at && this.at < to);
    const top = this.list.getBoundingClientRect().top + row.top;
    const above = stickyHeight() + 8;
    if (top < above) scrollBy({ top: top - above, behavior: "instant" });
    else if (top + row.height > innerHeight - 8) scrollBy({ top: top + row.height - innerHeight + 8, behavior: "instant" });
    this.draw();
    for (const tile of this.tiles.values()) if (tile.dataset.at) tile.firstChild.tabIndex = Number(tile.dataset.at) === this.at ? 0 : -1;
    this.tiles.get(this.state.hits[this.at].id)?.firstChild.focus({ preventScroll: true });
  }
}

/** A thin line under a picture: a piece for each term, filled as far as the picture meets it. */
function strip(hit, state) {
  const terms = reasons(hit.why, state.parts);
  if (terms.length < 2) return [];
  const most = state.answer.why_is === "product" ? 1 : Math.max(1e-9, ...terms.map(([, value]) => Math.abs(value)));
  const wide = 100 / terms.length;
  return [
    svg(
      "svg",
      { width: "100%", height: 5 },
      ...terms.map(([label, value], index) =>
        svg("rect", { class: state.hue(label), x: `${index * wide + 0.5}%`, width: `${(wide - 1) * Math.min(1, Math.abs(value) / most)}%`, height: 5 }),
      ),
    ),
  ];
}

function stickyHeight() {
  const top = document.querySelector(".topbar");
  return getComputedStyle(top).position === "sticky" ? top.offsetHeight : 0;
}
