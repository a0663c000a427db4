// Words on the map: names of regions, pins of the query's terms, and the regions as a list.

import { count, el } from "./dom.js";
import { withSelection } from "./lasso.js";

const LEVEL_ZOOMS = [1.9, 5]; // from these zooms on, the next smaller regions are named

export class Labels {
  /** layers: where names and pins go; list, listing: the list of regions, and what holds it. */
  constructor(state, camera, layers, list, listing) {
    Object.assign(this, { state, camera, layers, list, listing, regions: null, names: [], pins: [] });
  }

  /** Names and list of regions as /api/map/regions gives them; null for none yet. */
  setRegions(regions) {
    this.regions = regions;
    this.drawNames();
    this.drawList();
    this.camera.changed();
  }

  /** Put all of them where they belong now. */
  place() {
    this.placeNames(this.placeTerms());
  }

  get level() {
    const num = this.regions?.levels.length ?? 0;
    return Math.min(num - 1, LEVEL_ZOOMS.filter((zoom) => this.camera.zoom >= zoom).length);
  }

  drawNames() {
    this.names = (this.regions?.levels ?? []).map((level) =>
      level
        .filter((region) => region.name)
        .sort((a, b) => b.num - a.num)
        .map((region) => ({ region, label: el("span", {}, region.name) })),
    );
    this.layers.names.replaceChildren();
    this.namedLevel = -1;
  }

  /** Names of the regions in view, large ones first; none over another, or over `taken` boxes. */
  placeNames(taken) {
    const { level } = this;
    if (level < 0) return;
    if (this.namedLevel !== level) {
      this.namedLevel = level;
      this.layers.names.replaceChildren(...this.names[level].map(({ label }) => label));
      for (const name of this.names[level]) name.size = null;
    }
    for (const name of this.names[level]) {
      name.size ??= [name.label.offsetWidth, name.label.offsetHeight];
      const [at, top] = this.camera.toScreen(name.region.x / 65535, name.region.y / 65535);
      const [w, h] = name.size;
      const isIn = at > 0 && at < this.camera.width; // then its name is read whole, also at the edge
      const left = isIn ? Math.max(w / 2 + 4, Math.min(this.camera.width - w / 2 - 4, at)) : at;
      const box = [left - w / 2, top - h / 2, left + w / 2, top + h / 2];
      const isHidden =
        box[2] < 0 || box[0] > this.camera.width || box[3] < 0 || box[1] > this.camera.height || taken.some((other) => overlap(box, other));
      if (!isHidden) taken.push(box);
      name.label.classList.toggle("map-covered", isHidden);
      name.label.style.transform = `translate(-50%, -50%) translate(${left.toFixed(1)}px, ${top.toFixed(1)}px)`;
    }
  }

  /** Pins of the query's terms as /api/map/place gives them. */
  setTerms(terms) {
    this.pins = terms.map((term) => {
      const role = term.is_without ? "hue-minus" : this.state.hue?.(term.label) ?? "hue-0";
      const text = `${term.is_without ? "− " : ""}${term.label}`;
      const scattered = term.share < 0.35 ? el("small", {}, "scattered") : null;
      return { term, pin: el("span", { class: `map-pin ${role}`, title: this.explain(term) }, el("i"), el("b", {}, text), scattered) };
    });
    this.layers.terms.replaceChildren(...this.pins.map(({ pin }) => pin));
    this.camera.changed();
  }

  explain(term) {
    if (term.kind === "image" && term.share === 1) return `${term.label}: this picture`;
    return `${term.label}: where the pictures nearest to it are densest; ${Math.round(100 * term.share)} % of the nearest ${term.ids.length} are here`;
  }

  /** Returns the boxes that the pins cover. */
  placeTerms() {
    const boxes = [];
    const covered = [];
    for (const { term, pin } of this.pins) {
      const [left, top] = this.camera.toScreen(term.x / 65535, term.y / 65535);
      let lift = 0; // pins at one place stand on each other
      while (boxes.some(([x, y]) => Math.abs(x - left) < 70 && Math.abs(y - (top - lift)) < 24)) lift += 26;
      boxes.push([left, top - lift]);
      pin.style.transform = `translate(${left.toFixed(1)}px, ${top.toFixed(1)}px)`;
      pin.style.setProperty("--lift", `${lift}px`);
      covered.push([left - 30, top - lift - 42, left + 30, top + 10]);
    }
    return covered;
  }

  /** The regions as a list, for those who cannot see the map or draw on it: a press looks there, another keeps its pictures. */
  drawList() {
    const largest = this.regions?.levels[1] ?? this.regions?.levels[0] ?? [];
    const items = [...largest]
      .filter((region) => region.name)
      .sort((a, b) => b.num - a.num)
      .map((region) => {
        const words = region.words.map(([word]) => word).join(", ");
        const radius = Math.max(...region.outline.map(([x, y]) => Math.hypot(x - region.x, y - region.y)), 1) / 65535;
        const look = () => this.camera.lookAt(region.x / 65535, region.y / 65535, radius);
        const keep = () => this.state.ask({ where: withSelection(this.state.asked.where, region.where) });
        return el(
          "li",
          {},
          el("button", { type: "button", class: "map-region", title: words, on: { click: look } }, region.name, el("small", {}, ` ${count.format(region.num)}`)),
          region.where &&
            el("button", { type: "button", class: "map-keep", "aria-label": `Keep only ${region.name}`, title: "Keep only these", on: { click: keep } }, "only"),
        );
      });
    this.list.replaceChildren(...items);
    this.listing.hidden = !items.length;
  }
}

function overlap(a, b) {
  return a[0] < b[2] + 6 && a[2] > b[0] - 6 && a[1] < b[3] + 2 && a[3] > b[1] - 2;
}
