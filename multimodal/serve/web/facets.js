// What the pictures' columns hold, with counts; a click writes the filter's text, which can be typed as well.

import { get } from "./api.js";
import { count, el, iconButton, svg } from "./dom.js";
import { asOne, clausesOf, column, rangeOf, toggled, valuesOf, withClause, without } from "./where.js";

const SHOWN = 8; // values of a facet before "more"

export class Facets {
  constructor(state) {
    this.state = state;
    this.box = document.getElementById("facets");
    this.all = [];
    this.opened = new Set();
    this.asking = null;
    this.asked = null;
    this.field = el("input", { id: "where", "aria-label": "Filter", spellcheck: "false", autocomplete: "off", placeholder: "such as date >= 2024-06" });
    this.problem = el("div", { id: "where-problem" });
    this.form = el(
      "form",
      { class: "where", on: { submit: (event) => (event.preventDefault(), state.ask({ where: this.field.value.trim() })) } },
      el("label", { for: "where" }, "where"),
      this.field,
      el("button", { class: "small" }, "Filter"),
    );
    this.body = el("div", { class: "facet-list" });
    this.clear = el("button", { type: "button", class: "link", on: { click: () => state.ask({ where: "" }) } }, "Clear the filter");
    this.box.append(
      el("div", { class: "facets-top" }, el("h2", {}, "Filters"), iconButton("close", "Close the filters", () => this.toggle(false))),
      this.form,
      this.problem,
      this.clear,
      this.body,
    );
    state.addEventListener("asked", () => {
      this.field.value = state.asked.where;
      this.follow();
    });
    this.field.value = state.asked.where;
    state.addEventListener("store", () => this.follow());
    state.addEventListener("error", () => this.say());
  }

  get isOpen() {
    return !this.box.hidden;
  }

  toggle(isOpen = !this.isOpen, isFocused = true) {
    this.box.hidden = !isOpen;
    document.body.classList.toggle("filtering", isOpen);
    this.follow();
    if (isOpen && isFocused) this.field.focus({ preventScroll: true });
    this.state.tell("filters");
  }

  say() {
    const { error } = this.state;
    const isMine = error?.message.startsWith("where");
    this.problem.replaceChildren(...(isMine ? [el("pre", { class: "error", role: "alert" }, error.message)] : []));
  }

  async follow() {
    if (!this.isOpen) return;
    const { where, store } = this.state.asked;
    this.clear.hidden = !where;
    const asked = JSON.stringify([where, store]);
    if (asked === this.asked) return;
    this.asking?.abort();
    const asking = (this.asking = new AbortController());
    try {
      const all = await get("api/facets", { store, where }, asking.signal);
      // a column that is filtered shows its other values too: counted without its own clause
      for (const [at, facet] of all.entries()) {
        if (!clausesOf(where, facet.column).length) continue;
        const others = await get("api/facets", { store, where: without(where, facet.column) }, asking.signal);
        all[at] = others.find((one) => one.column === facet.column) ?? facet;
      }
      if (this.asking !== asking) return;
      this.asked = asked;
      this.all = all;
      this.draw();
    } catch (error) {
      if (error.name !== "AbortError") this.problem.replaceChildren(el("pre", { class: "error", role: "alert" }, error.message));
    }
  }

  draw() {
    const shown = this.all.filter((facet) => facet.bins?.length || (facet.values?.length && !(facet.values.length === 1 && !facet.missing)));
    const focused = this.body.contains(document.activeElement) ? document.activeElement.dataset.is : null;
    this.body.replaceChildren(
      ...(shown.length ? shown.map((facet) => this.facet(facet)) : [el("p", { class: "soft" }, "These pictures have no columns with values to choose from. A filter can still be typed.")]),
    );
    if (focused) this.body.querySelector(`[data-is="${CSS.escape(focused)}"]`)?.focus();
  }

  facet(facet) {
    const id = `facet-${facet.column.replaceAll(/\W/gu, "-")}`;
    return el(
      "section",
      { class: "facet", "aria-labelledby": id, data: { column: facet.column } },
      el("h3", { id }, facet.column),
      facet.bins?.length ? this.histogram(facet) : this.values(facet),
      facet.missing ? this.missing(facet) : null,
    );
  }

  values(facet) {
    const { state } = this;
    const { where } = state.asked;
    const own = clausesOf(where, facet.column);
    const chosen = new Set(valuesOf(where, facet.column));
    const isSimple = (one) => one.where.startsWith(`${column(facet.column)} = "`);
    const isOn = (one) => (isSimple(one) ? chosen.has(String(one.value)) : own.includes(asOne(one.where)));
    // what is clicked changes the filter as it is then: the facets may be those of the one before
    const next = (one) =>
      isSimple(one) ? toggled(state.asked.where, facet.column, String(one.value)) : withClause(state.asked.where, facet.column, isOn(one) ? null : asOne(one.where));
    const most = Math.max(1, ...facet.values.map((one) => one.count));
    const isLong = this.opened.has(facet.column);
    const first = facet.values.filter((one, at) => isLong || at < SHOWN || isOn(one));
    const row = (one) => {
      const text = String(one.value) || "(the folder itself)";
      return el(
        "li",
        {},
        el(
          "label",
          { class: "value" },
          el("input", { type: "checkbox", checked: isOn(one), data: { is: `${facet.column}=${text}` }, on: { change: () => state.ask({ where: next(one) }) } }),
          el("span", { class: "text", title: text }, shorten(text)),
          el("span", { class: "num" }, count.format(one.count)),
          svg("svg", { class: "size", width: "100%", height: 3, "aria-hidden": "true" }, svg("rect", { width: `${(100 * one.count) / most}%`, height: 3 })),
        ),
      );
    };
    const more = facet.values.length - first.length;
    return [
      el("ul", {}, first.map(row)),
      more > 0
        ? el("button", { type: "button", class: "link", on: { click: () => (this.opened.add(facet.column), this.draw()) } }, `${count.format(more)} more`)
        : null,
    ];
  }

  /** Bars; a click is one bin, with Shift the range from the last one. */
  histogram(facet) {
    const { state } = this;
    const range = rangeOf(state.asked.where, facet.column);
    const most = Math.max(1, ...facet.bins.map((bin) => bin.count));
    const isWithin = (bin) => !range || (compare(bin.from, range.from) >= 0 && compare(bin.from, range.to) <= (range.isOpen ? -1e-9 : 0));
    const choose = (at, isRange) => {
      const last = isRange && this.last?.column === facet.column ? this.last.at : at;
      if (last === at) this.last = { column: facet.column, at };
      const clause = last === at ? asOne(facet.bins[at].where) : rangeClause(facet, Math.min(at, last), Math.max(at, last));
      const own = clausesOf(state.asked.where, facet.column);
      state.ask({ where: withClause(state.asked.where, facet.column, own.includes(clause) ? null : clause) });
    };
    const bins = facet.bins.map((bin, at) => {
      const words = `${named(bin, facet)}: ${count.format(bin.count)}`;
      return el(
        "button",
        {
          type: "button",
          class: isWithin(bin) ? "bin" : "bin off",
          title: `${words}. Shift-click for a range`,
          "aria-label": words,
          "aria-pressed": String(range !== null && isWithin(bin)),
          data: { is: `${facet.column}~${at}` },
          on: { click: (event) => choose(at, event.shiftKey) },
        },
        svg("svg", { width: "100%", height: 48, "aria-hidden": "true" }, svg("rect", { width: "100%", y: 48 - Math.max(2, (46 * bin.count) / most), height: 48 })),
      );
    });
    return [
      el("div", { class: "histogram", role: "group", "aria-label": `${facet.column}, as bars` }, bins),
      el(
        "div",
        { class: "ends" },
        el("span", {}, String(facet.bins[0].from)),
        range ? el("span", { class: "range" }, range.from === range.to ? range.from : `${range.from} to ${range.to}`) : null,
        el("span", {}, String(facet.kind === "date" ? facet.bins.at(-1).from : facet.bins.at(-1).to)),
      ),
    ];
  }

  missing(facet) {
    const { state } = this;
    const clause = `${column(facet.column)} is missing`;
    const isOn = clausesOf(state.asked.where, facet.column).includes(clause);
    const change = () => state.ask({ where: withClause(state.asked.where, facet.column, isOn ? null : clause) });
    return el(
      "label",
      { class: "value missing" },
      el("input", { type: "checkbox", checked: isOn, data: { is: `${facet.column}?` }, on: { change } }),
      el("span", { class: "text" }, "missing"),
      el("span", { class: "num" }, count.format(facet.missing)),
    );
  }
}

/** From one bin to another. Dates end with their bin, whole numbers have their last one in it, others end before it. */
function rangeClause(facet, first, last) {
  const [from, to] = [facet.bins[first], facet.bins[last]];
  const name = column(facet.column);
  if (facet.kind === "date") return `${name} between ${from.from} and ${to.from}`;
  if (from.where.includes(" < ")) return `(${name} >= ${from.from} and ${name} < ${to.to})`;
  return `${name} between ${from.from} and ${to.to}`;
}

function named({ from, to }, facet) {
  return facet.kind === "date" || String(from) === String(to) ? String(from) : `${from} to ${to}`;
}

function compare(one, other) {
  const [a, b] = [Number(one), Number(other)];
  if (Number.isFinite(a) && Number.isFinite(b)) return a - b;
  const [left, right] = [String(one), String(other).slice(0, String(one).length)];
  return left < right ? -1 : left > right ? 1 : 0;
}

/** The end of a long path says more than its beginning. */
function shorten(text) {
  return text.length > 34 ? `…${text.slice(-33)}` : text;
}
