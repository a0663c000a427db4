// One query in several columns: stores of the same pictures, or ways of combining terms. A picture that is in several is marked in all of them.
//
// The address names them, `columns=wordvec,topic:sum`: a store, and after a colon a way of combining.

import { get } from "./api.js";
import { count, el, iconButton, small } from "./dom.js";

const NUM = 24;
const MOST_COLUMNS = 4;

export class Columns {
  constructor(state) {
    this.state = state;
    this.box = document.getElementById("columns");
    this.asking = null;
    this.drawn = null;
    for (const event of ["asked", "store"]) state.addEventListener(event, () => this.follow());
  }

  /** [{store, fusion}] of the address; by default all stores, or the two ways of one. */
  get shown() {
    const { asked, stores, store } = this.state;
    if (asked.columns) {
      return asked.columns.split(",").slice(0, MOST_COLUMNS).map((one) => {
        const [name, fusion = ""] = one.split(":");
        return { store: name, fusion };
      });
    }
    if (stores.length > 1) return stores.slice(0, MOST_COLUMNS).map(({ name }) => ({ store: name, fusion: "" }));
    const ways = (store?.fusions ?? []).filter(({ name }) => name).slice(0, 2);
    return ways.length > 1 ? ways.map(({ name }) => ({ store: store.name, fusion: name })) : [{ store: store?.name ?? "", fusion: "" }];
  }

  write(shown) {
    this.state.ask({ columns: shown.map(({ store, fusion }) => (fusion ? `${store}:${fusion}` : store)).join(",") });
  }

  follow() {
    const { asked, stores } = this.state;
    if (asked.view !== "columns" || !stores.length) return;
    const { shown } = this;
    const question = JSON.stringify([asked.q, asked.where, asked.order, asked.cut_off, asked.fold, shown]);
    if (question === this.drawn) return;
    this.drawn = question;
    this.asking?.abort();
    const asking = (this.asking = new AbortController());
    const heads = JSON.stringify([shown, stores.map(({ name }) => name)]);
    if (heads !== this.heads) {
      this.heads = heads;
      this.lists = shown.map(() => el("ol", { class: "column-hits", role: "list" }));
      this.notes = shown.map(() => el("p", { class: "soft" }));
      this.box.replaceChildren(
        ...shown.map((one, at) => el("section", { class: "column", "aria-label": `${one.store} ${one.fusion}` }, this.head(one, at, shown), this.notes[at], this.lists[at])),
        ...(shown.length < MOST_COLUMNS ? [this.adder(shown)] : []),
      );
    }
    if (!asked.q.trim()) {
      this.lists.forEach((list) => list.replaceChildren());
      return;
    }
    shown.forEach((one, at) => this.fill(one, at, asking));
  }

  head(one, at, shown) {
    const { stores } = this.state;
    const change = (patch) => this.write(shown.map((other, place) => (place === at ? { ...other, ...patch } : other)));
    const record = stores.find(({ name }) => name === one.store);
    const store = el("select", { "aria-label": `Store of column ${at + 1}`, on: { change: () => change({ store: store.value, fusion: "" }) } }, stores.map(({ name }) => el("option", { value: name, selected: name === one.store }, name)));
    const fusion = el(
      "select",
      { "aria-label": `How column ${at + 1} combines terms`, on: { change: () => change({ fusion: fusion.value }) } },
      (record?.fusions ?? []).map(({ name, title }) => el("option", { value: name, selected: name === one.fusion }, name ? title : "the store's way")),
    );
    const remove = shown.length > 1 ? iconButton("close", `Remove column ${at + 1}`, () => this.write(shown.filter((_, place) => place !== at))) : null;
    return el("div", { class: "column-top" }, store, fusion, remove);
  }

  adder(shown) {
    const last = shown.at(-1);
    return el("div", { class: "adder" }, iconButton("plus", "Another column", () => this.write([...shown, { ...last }])));
  }

  async fill(one, at, asking) {
    const { asked } = this.state;
    const [list, note] = [this.lists[at], this.notes[at]];
    try {
      const { where, order, cut_off, fold } = asked;
      const answer = await get("api/search", { q: asked.q, k: NUM, where, order, cut_off, fold, ...one }, asking.signal);
      if (this.asking !== asking) return;
      note.textContent = answer.remark || (answer.time_ms === undefined ? "" : `${Math.max(1, Math.round(answer.time_ms))} ms`);
      list.replaceChildren(...answer.hits.map((hit) => this.tile(hit, one)));
      this.mark();
    } catch (error) {
      if (error.name === "AbortError" || this.asking !== asking) return;
      list.replaceChildren();
      note.replaceChildren(el("span", { role: "alert" }, error.message));
    }
  }

  tile(hit, one) {
    const words = hit.text || hit.name;
    const open = () => {
      this.state.ask({ store: one.store, fusion: one.fusion, view: "columns" }, { push: false });
      this.state.open(hit.id);
    };
    const link = el("button", { type: "button", class: "picture-button", title: words, "aria-label": `${hit.rank}: ${words}`, on: { click: open } }, small(this.state.small(hit, one.store), words, { loading: "lazy" }));
    const glow = (isOn) => () => {
      for (const other of this.box.querySelectorAll("li")) other.classList.toggle("same", isOn && other.dataset.name === hit.name);
    };
    return el("li", { data: { name: hit.name }, on: { mouseenter: glow(true), mouseleave: glow(false), focusin: glow(true), focusout: glow(false) } }, link, el("span", { class: "rank" }, count.format(hit.rank)), el("span", { class: "also" }));
  }

  /** On each picture, where the others have it. */
  mark() {
    if (this.lists.length < 2) return;
    const ranks = this.lists.map((list) => new Map([...list.children].map((item, at) => [item.dataset.name, at + 1])));
    this.lists.forEach((list, at) => {
      for (const item of list.children) {
        const others = ranks.filter((_, other) => other !== at).map((rank) => rank.get(item.dataset.name));
        const isAlone = others.every((rank) => rank === undefined);
        item.classList.toggle("alone", isAlone);
        item.lastChild.textContent = isAlone ? "only here" : "";
      }
    });
  }
}
