// The map of a store: every picture as a point, near those that are like it. Regions have names, the query's terms are where their nearest
// pictures are, hits are lit, and what is drawn around becomes a filter.
//
//     const map = await mount(document.getElementById("map"), state);      // map.show(), map.hide()

import { bytes, get, post } from "./api.js";
import { Camera } from "./camera.js";
import { count, el } from "./dom.js";
import { Labels } from "./labels.js";
import { asPolygon, cornersOf, selection, withSelection, withoutSelection } from "./lasso.js";
import { Cells, Points, unpack, unpackMap } from "./points.js";

const THUMBNAIL_PX = 64;
const FEW_POINTS = 1200; // so many in view are shown as thumbnails
const MAX_THUMBNAILS = 120;
const REACH_PX = 14; // how far from the pointer a point is meant
const STEP_PX = 80;
const NO_WEBGL = "The map needs WebGL2, which this browser does not have or has switched off. The grid shows the same pictures.";

export async function mount(container, state) {
  try {
    return new StoreMap(container, state);
  } catch (error) {
    container.replaceChildren(el("p", { class: "map-sorry", role: "status" }, NO_WEBGL, ` (${error.message})`));
    return { show() {}, hide() {} };
  }
}

class StoreMap {
  constructor(container, state) {
    this.state = state;
    this.build(container);
    this.points = new Points(this.canvas);
    this.points.onRestored = () => this.redraw();
    this.camera = new Camera(() => this.redraw());
    this.labels = new Labels(state, this.camera, this.layers, this.list, this.listing);
    this.data = this.cells = this.placed = null;
    this.passing = null; // (n) bits of the filter, or null: all pass
    this.pictures = new Map(); // index -> <img> in view
    this.hovered = -1;
    this.isShown = false;
    this.pointers = new Map();
    this.listen();
  }

  // -- elements --------------------------------------------------------------------------------------------------------------------------

  build(container) {
    this.canvas = el("canvas", {
      class: "map-canvas",
      tabindex: 0,
      role: "application",
      "aria-label": "Map of all pictures. Arrows move, plus and minus zoom, 0 shows all, Enter opens the picture in the middle, K keeps what is in view.",
    });
    this.layers = Object.fromEntries(
      ["pictures", "outline", "names", "terms", "cross"].map((name) => [name, el("div", { class: `map-layer map-${name}`, "aria-hidden": "true" })]),
    );
    this.outline = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    this.outline.append(document.createElementNS(this.outline.namespaceURI, "polygon"));
    this.layers.outline.append(this.outline);
    this.cross = el("div", { class: "map-crosshair", hidden: true });
    this.layers.cross.append(this.cross);
    this.tip = el("figure", { class: "map-tip", hidden: true, "aria-hidden": "true" }, el("img", { alt: "" }), el("figcaption"));
    const tool = (words, text, on, given = {}) => el("button", { type: "button", class: "map-tool", title: words, "aria-label": words, on: { click: on }, ...given }, text);
    this.lassoButton = tool("Draw around pictures, to keep only these (L, or Shift while dragging)", "Lasso", () => this.setLasso(!this.isLasso), {
      "aria-pressed": "false",
    });
    this.clearButton = tool("Remove what was drawn from the filter", "Clear", () => this.clearSelection(), { hidden: true });
    this.tools = el(
      "div",
      { class: "map-tools", role: "toolbar", "aria-label": "Map" },
      tool("Zoom in (+)", "+", () => this.zoomIn()),
      tool("Zoom out (-)", "−", () => this.camera.zoomBy(1 / 1.6)),
      tool("Show all (0)", "All", () => this.camera.showAll()),
      this.lassoButton,
      tool("Keep only what is in view (K)", "Keep view", () => this.keepView()),
      this.clearButton,
    );
    this.list = el("ol", { class: "map-list" });
    this.listing = el("details", { class: "map-listing" }, el("summary", {}, "Regions"), this.list);
    this.probes = Object.fromEntries(["point", "lit", "ring"].map((name) => [name, el("i", { class: `map-colour-${name}`, hidden: true })]));
    this.status = el("p", { class: "map-status", role: "status" });
    this.root = el("div", { class: "map-root" }, this.canvas, ...Object.values(this.layers), this.tip, el("div", { class: "map-foot" }, this.tools, this.status), this.listing, ...Object.values(this.probes));
    container.replaceChildren(this.root);
  }

  listen() {
    const { canvas, state } = this;
    const on = (target, events, listener, options) => events.split(" ").forEach((event) => target.addEventListener(event, listener, options));
    on(canvas, "pointerdown", (event) => this.pointerDown(event));
    on(canvas, "pointermove", (event) => this.pointerMove(event));
    on(canvas, "pointerup pointercancel", (event) => this.pointerUp(event));
    on(canvas, "pointerleave", () => this.hover(-1));
    on(canvas, "wheel", (event) => this.wheel(event), { passive: false });
    on(canvas, "dblclick", (event) => this.camera.zoomBy(2, ...this.spot(event)));
    on(canvas, "keydown", (event) => this.key(event));
    on(canvas, "focus blur", () => this.redraw());
    on(state, "asked store answer parts", () => this.follow());
    on(state, "theme", () => this.recolour());
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    on(this.scheme, "change", () => this.recolour());
    new ResizeObserver(() => this.resize()).observe(this.root);
  }

  show() {
    this.isShown = true;
    this.recolour();
    this.resize();
    this.follow();
  }

  hide() {
    this.isShown = false;
    this.hover(-1);
  }

  // -- data ------------------------------------------------------------------------------------------------------------------------------

  /** Ask for what has changed since: the map of another store, another filter, another query. */
  follow() {
    if (!this.isShown) return;
    const { q, where, store, fusion } = this.state.asked;
    const name = this.state.store?.name ?? store;
    const generation = this.state.answer?.generation ?? this.state.store?.generation ?? 0;
    this.ask("map", `${name} ${Math.max(generation, this.data?.header.generation ?? 0)}`, (signal) => this.loadMap(name, signal));
    const of = this.data ? `${name} ${this.data.header.generation} ${this.data.header.version}` : null;
    if (of === null) return;
    this.ask("passing", `${of} ${where}`, (signal) => this.loadPassing(where, name, signal));
    this.ask("placed", `${of} ${q}\n${where}\n${fusion}`, (signal) => this.loadPlaced({ q, where, fusion, store: name }, signal));
    this.ask("regions", of, (signal) => this.loadRegions(name, signal));
    this.light();
  }

  /** Load something again if its key is another; what was begun for the key before is given up. */
  ask(what, key, load) {
    this.asking ??= {};
    if (this.asking[what]?.key === key) return;
    this.asking[what]?.aborting.abort();
    const aborting = new AbortController();
    const mine = (this.asking[what] = { key, aborting });
    load(aborting.signal).catch((error) => {
      if (error.name === "AbortError" || this.asking[what] !== mine) return;
      if (what === "map") this.asking[what] = null;
      this.problem = error.message;
      this.tell();
    });
  }

  async loadMap(store, signal) {
    const buffer = await bytes("api/map", { store }, signal);
    const before = this.data?.header;
    this.data = unpackMap(buffer);
    this.asking.map.key = `${store} ${this.data.header.generation}`; // which may be newer than what was asked for
    this.cells = new Cells(this.data.places);
    this.indexOf = new Map();
    this.data.ids.forEach((id, i) => this.indexOf.set(id, i));
    this.passing = null;
    this.placed = null;
    this.problem = "";
    this.clearPictures();
    if (before?.version !== this.data.header.version) {
      this.labels.setRegions(null);
      this.camera.showAll();
    }
    this.points.setPlaces(this.data.places);
    this.light();
    this.follow();
  }

  async loadPassing(where, store, signal) {
    if (!where.trim()) {
      this.passing = null;
    } else {
      const buffer = await bytes("api/map/passing", { where, store }, signal);
      const { header, start } = unpack(buffer);
      if (header.generation !== this.data.header.generation) return this.again();
      this.passing = new Uint8Array(buffer, start);
    }
    this.problem = "";
    this.light();
  }

  async loadPlaced(query, signal) {
    this.placed = query.q.trim() ? await post("api/map/place", query, {}, signal) : null;
    if (this.placed && this.placed.generation !== this.data.header.generation) return this.again();
    this.problem = "";
    this.light();
    this.labels.setTerms(this.placed?.terms ?? []);
  }

  async loadRegions(store, signal) {
    this.labels.setRegions(await get("api/map/regions", { store }, signal));
  }

  /** The store has changed: the map is asked for again, soon. */
  again() {
    setTimeout(() => {
      this.asking = {};
      this.follow();
    }, 500);
  }

  passes(i) {
    return this.passing === null || ((this.passing[i >> 3] >> (i & 7)) & 1) === 1;
  }

  /** How much each point is to be seen, and which are lit. */
  light() {
    if (!this.data) return;
    const num = this.data.ids.length;
    const hits = this.placed?.ids ?? this.state.hits.map((hit) => hit.id);
    const found = this.state.asked.q.trim() ? hits.map((id) => this.indexOf.get(id)).filter((i) => i !== undefined) : [];
    this.rank = new Map(found.map((i, rank) => [i, rank]));
    const strengths = new Uint8Array(num).fill(found.length ? 150 : 255);
    if (this.passing) for (let i = 0; i < num; i++) if (!this.passes(i)) strengths[i] = 28;
    found.forEach((i, rank) => (strengths[i] = 255 - Math.round((150 * rank) / Math.max(found.length, 48))));
    this.points.setStrengths(strengths);
    this.points.setLit(found.reverse());
    this.drawSelection();
    this.redraw();
  }

  // -- the view --------------------------------------------------------------------------------------------------------------------------

  resize() {
    const { width, height } = this.root.getBoundingClientRect();
    if (!width || !height) return;
    Object.assign(this.camera, { width, height });
    this.density = Math.min(devicePixelRatio || 1, 2);
    this.canvas.width = Math.round(width * this.density);
    this.canvas.height = Math.round(height * this.density);
    this.outline.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.recolour(); // the stylesheet may have come only now
  }

  redraw() {
    if (this.willDraw) return;
    this.willDraw = true;
    requestAnimationFrame(() => {
      this.willDraw = false;
      if (this.isShown && this.data && this.camera.width) this.draw();
    });
  }

  recolour() {
    const of = (name, alpha) => [...rgb(getComputedStyle(this.probes[name]).color), alpha];
    this.colours = { plain: of("point", 0.62), bright: of("lit", 1), ring: of("ring", 0.9) };
    this.redraw();
  }

  /** The diameter of a point in pixels: what makes all of them together cover a part of the map, and more when near. */
  get size() {
    const spacing = Math.sqrt((this.camera.wide * this.camera.high) / Math.max(this.data.ids.length, 1)) * 0.5;
    return Math.min(11, Math.max(1.6, spacing));
  }

  draw() {
    if (!this.hasDrawn) performance.mark("map-drawn"), (this.hasDrawn = true);
    const { camera, density } = this;
    this.points.draw({
      centre: [camera.x, camera.y],
      scale: [(2 * camera.wide) / camera.width, (2 * camera.high) / camera.height],
      size: this.size * density,
      ...this.colours,
    });
    this.drawPictures();
    this.labels.place();
    this.drawSelection();
    this.drawCross();
    this.tell();
  }

  // -- what lies on the points -----------------------------------------------------------------------------------------------------------

  /** Thumbnails of some points in view, when these are few: one in each cell, so that they do not cover each other. */
  drawPictures() {
    const bounds = this.camera.bounds(THUMBNAIL_PX / 2);
    const shown = new Map();
    if (this.cells.count(...bounds) <= FEW_POINTS) {
      // cells of a power of two of the map, so that a picture stays where it is while the map moves
      const [across, up] = [this.camera.wide, this.camera.high].map((side) => 2 ** Math.round(Math.log2(side / THUMBNAIL_PX)));
      const best = new Map();
      this.cells.within(...bounds, (i, x, y) => {
        if (!this.passes(i)) return;
        const cell = Math.floor(x * across) * 1e6 + Math.floor(y * up);
        const before = best.get(cell);
        if (before === undefined || this.order(i) < this.order(before)) best.set(cell, i);
      });
      const kept = [];
      for (const i of [...best.values()].sort((a, b) => this.order(a) - this.order(b))) {
        const [left, top] = this.camera.toScreen(...this.place(i));
        if (kept.some(([x, y]) => Math.abs(x - left) < 0.7 * THUMBNAIL_PX && Math.abs(y - top) < 0.7 * THUMBNAIL_PX)) continue;
        kept.push([left, top]);
        shown.set(i, [left, top]);
        if (kept.length === MAX_THUMBNAILS) break;
      }
    }
    for (const [i, image] of this.pictures) if (!shown.has(i)) image.remove(), this.pictures.delete(i);
    for (const [i, [left, top]] of shown) {
      if (!this.pictures.has(i)) this.pictures.set(i, this.picture(i));
      const image = this.pictures.get(i);
      image.style.transform = `translate(-50%, -50%) translate(${left.toFixed(1)}px, ${top.toFixed(1)}px)`;
      image.classList.toggle("map-hit", this.rank?.has(i) ?? false);
    }
  }

  /** Hits first, then by number. */
  order(i) {
    return this.rank?.get(i) ?? 1e6 + i;
  }

  picture(i) {
    const image = el("img", { alt: "", draggable: "false", decoding: "async", src: this.state.thumbnail(this.data.ids[i]) });
    image.addEventListener("load", () => image.classList.add("map-loaded"));
    this.layers.pictures.append(image);
    return image;
  }

  clearPictures() {
    this.layers.pictures.replaceChildren();
    this.pictures.clear();
  }

  place(i) {
    const { places } = this.data;
    return [places[2 * i] / 65535, places[2 * i + 1] / 65535];
  }

  drawCross() {
    const isOn = document.activeElement === this.canvas && this.canvas.matches(":focus-visible");
    this.cross.hidden = !isOn;
    if (isOn && !this.pointers.size) this.hover(this.middle(), this.camera.width / 2, this.camera.height / 2);
  }

  tell() {
    if (!this.data) return;
    const { num, method, num_placed: placed } = this.data.header;
    const made = method === "umap" ? "placed by UMAP" : "placed by PCA; a better map: multimodal store map";
    const parts = [`${count.format(num)} pictures, ${made}`];
    if (placed) parts.push(`${count.format(placed)} came later and are beside those that are like them`);
    if (!this.labels.regions) parts.push("regions are being named");
    if (this.labels.pins.length) parts.push("words are where their nearest pictures are");
    const text = this.problem || `${parts.join("; ")}.`;
    if (this.status.textContent !== text) this.status.textContent = text;
  }

  // -- pointers and keys -----------------------------------------------------------------------------------------------------------------

  spot(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  nearest(left, top, reach = REACH_PX) {
    return this.cells?.nearest(...this.camera.toMap(left, top), reach / this.camera.wide, reach / this.camera.high, (i) => this.passes(i)) ?? -1;
  }

  /** The point in view that is nearest to the middle, which is what keys choose. */
  middle() {
    return this.nearest(this.camera.width / 2, this.camera.height / 2, Math.max(this.camera.width, this.camera.height) / 2);
  }

  /** Nearer to the middle, where there are pictures: a map by UMAP has wide empty places. */
  zoomIn() {
    const i = this.middle();
    this.camera.zoomBy(1.6, ...(i < 0 ? [] : this.camera.toScreen(...this.place(i))));
  }

  pointerDown(event) {
    if (event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.spot(event));
    if (this.pointers.size === 1) this.drag = { from: this.spot(event), moved: false, line: this.isLasso || event.shiftKey ? [this.camera.toMap(...this.spot(event))] : null };
    else if (this.drag) this.drag.line = null;
    this.hover(-1);
  }

  pointerMove(event) {
    const at = this.spot(event);
    const before = this.pointers.get(event.pointerId);
    if (!before) return this.hover(this.nearest(...at), ...at);
    if (this.pointers.size === 2) {
      const [other] = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, spot]) => spot);
      const middle = [(at[0] + other[0]) / 2, (at[1] + other[1]) / 2];
      const factor = Math.hypot(at[0] - other[0], at[1] - other[1]) / Math.max(Math.hypot(before[0] - other[0], before[1] - other[1]), 1);
      this.camera.moveBy((before[0] - at[0]) / 2, (before[1] - at[1]) / 2);
      this.camera.zoomBy(factor, ...middle);
      this.drag.moved = true;
    } else if (this.drag) {
      if (Math.hypot(at[0] - this.drag.from[0], at[1] - this.drag.from[1]) > 4) this.drag.moved = true;
      if (this.drag.line) this.drag.line.push(this.camera.toMap(...at)), this.drawSelection();
      else if (this.drag.moved) this.camera.moveBy(before[0] - at[0], before[1] - at[1]);
    }
    this.pointers.set(event.pointerId, at);
  }

  pointerUp(event) {
    if (!this.pointers.delete(event.pointerId) || this.pointers.size) return;
    const { drag } = this;
    this.drag = null;
    if (!drag || event.type === "pointercancel") return this.drawSelection();
    if (drag.line && drag.moved) return this.keep(drag.line);
    if (drag.moved) return;
    const i = this.nearest(...this.spot(event));
    if (i >= 0) this.state.open(this.data.ids[i]);
  }

  wheel(event) {
    event.preventDefault();
    const step = event.deltaY * (event.deltaMode === 1 ? 16 : 1) * (event.ctrlKey ? 4 : 1);
    this.camera.zoomBy(Math.exp(-Math.max(-200, Math.min(200, step)) / 400), ...this.spot(event));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const move = (x, y) => this.camera.moveBy(x * STEP_PX, y * STEP_PX);
    const keys = {
      ArrowLeft: () => move(-1, 0),
      ArrowRight: () => move(1, 0),
      ArrowUp: () => move(0, -1),
      ArrowDown: () => move(0, 1),
      "+": () => this.zoomIn(),
      "=": () => this.zoomIn(),
      "-": () => this.camera.zoomBy(1 / 1.6),
      0: () => this.camera.showAll(),
      l: () => this.setLasso(!this.isLasso),
      k: () => this.keepView(),
      Enter: () => {
        const i = this.middle();
        if (i >= 0) this.state.open(this.data.ids[i]);
      },
      Escape: () => (this.isLasso || this.drag?.line ? (this.setLasso(false), (this.drag = null), this.drawSelection()) : this.clearSelection()),
    };
    if (!keys[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    keys[event.key]();
  }

  setLasso(isOn) {
    this.isLasso = isOn;
    this.lassoButton.setAttribute("aria-pressed", String(isOn));
    this.root.classList.toggle("map-lassoing", isOn);
  }

  /** What was drawn around becomes a part of the filter. */
  keep(line) {
    this.setLasso(false);
    const corners = asPolygon(line, 2 / this.camera.wide);
    if (corners.length < 3) return this.drawSelection();
    const decimals = Math.max(1, Math.ceil(Math.log10(this.camera.wide / 1000)));
    this.state.ask({ where: withSelection(this.state.asked.where, selection(this.data.header.version, corners, decimals)) });
  }

  keepView() {
    const [left, bottom, right, top] = this.camera.bounds();
    this.keep([[left, bottom], [right, bottom], [right, top], [left, top]]);
  }

  clearSelection() {
    this.state.ask({ where: withoutSelection(this.state.asked.where) });
  }

  /** The outline of what is being drawn, or of what the filter has. */
  drawSelection() {
    const kept = cornersOf(this.state.asked.where);
    const corners = this.drag?.line ?? kept ?? [];
    this.clearButton.hidden = !kept;
    const written = this.camera.width ? corners.map(([x, y]) => this.camera.toScreen(x, y).map((value) => value.toFixed(1)).join(",")).join(" ") : "";
    this.outline.firstChild.setAttribute("points", written);
    this.outline.classList.toggle("map-drawing", Boolean(this.drag?.line));
  }

  /** Show the picture of a point beside the pointer; -1: none. */
  hover(i, left = 0, top = 0) {
    if (i < 0 || !this.data) {
      this.hovered = -1;
      this.tip.hidden = true;
      this.canvas.classList.remove("map-over");
      return;
    }
    if (i !== this.hovered) {
      this.hovered = i;
      const [image, caption] = this.tip.children;
      const id = this.data.ids[i];
      image.src = this.state.thumbnail(id);
      const rank = this.rank?.get(i);
      const said = this.state.hits.find((hit) => hit.id === id)?.text;
      caption.textContent = rank === undefined ? `picture ${id}` : `${rank + 1}. ${said || `picture ${id}`}`;
    }
    this.tip.hidden = false;
    const isRight = left > this.camera.width - 220;
    const isLow = top > this.camera.height - 240;
    this.tip.style.transform = `translate(${left + (isRight ? -16 : 16)}px, ${top + (isLow ? -16 : 16)}px) translate(${isRight ? -100 : 0}%, ${isLow ? -100 : 0}%)`;
    this.canvas.classList.add("map-over");
  }
}

/** [r, g, b] from 0 to 1 of what a browser computes: rgb(1, 2, 3). */
function rgb(written) {
  return written.match(/[\d.]+/g).slice(0, 3).map((value) => Number(value) / 255);
}
