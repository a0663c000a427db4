// What stands beside the hits: how many there are, their order, the cut-off in words, copies, the way terms are combined, the store, and sharing.

import { copy, count, el, icon, iconButton, keep } from "./dom.js";
import { command } from "./query.js";

const CHOSEN = ["true", "on"];

export function options(state, grid, facets) {
  const summary = document.getElementById("summary");
  const found = el("p", { class: "found", role: "status", "aria-live": "polite" });
  const order = el("select", { id: "order", on: { change: () => state.ask({ order: order.value }) } });
  const share = el("input", { id: "cut-off", type: "range", min: 0.05, max: 1, step: 0.05, value: 1, "aria-describedby": "cut-off-words" });
  const words = el("output", { id: "cut-off-words", for: "cut-off" });
  const fold = el("input", { id: "fold", type: "checkbox", on: { change: () => state.ask({ fold: fold.checked ? "true" : "" }) } });
  const fusion = el("select", { id: "fusion", on: { change: () => state.ask({ fusion: fusion.value }) } });
  const store = el("select", { id: "store", on: { change: () => state.ask({ store: store.value, fusion: "", where: state.asked.where }) } });
  const filters = el("button", { type: "button", id: "filters", class: "tool", "aria-expanded": "false", "aria-controls": "facets", on: { click: () => facets.toggle() } }, icon("filter"), el("span", {}, "Filters"));
  const size = el("select", { id: "size", on: { change: () => grid.setSize(size.value) } }, ["small", "middle", "large"].map((one) => el("option", { value: one, selected: one === grid.size }, one)));
  const controls = el(
    "div",
    { class: "controls" },
    filters,
    labelled("Store", store),
    labelled("Order", order),
    el("span", { class: "cut" }, el("label", { for: "cut-off" }, "Show"), share, words),
    el("label", { class: "check", for: "fold" }, fold, " fold copies"),
    labelled("Combine", fusion),
    labelled("Size", size),
    el(
      "span",
      { class: "sharing" },
      iconButton("copy", "Copy the command that finds the same", () => copy(command(state.asked, state.store?.name ?? "STORE"), "the command"), { id: "copy-command" }),
      iconButton("link", "Copy the address of this page", () => copy(location.href, "the address"), { id: "copy-address" }),
    ),
  );
  summary.replaceChildren(controls, found);

  share.addEventListener("input", () => {
    const cut_off = Number(share.value) >= 1 ? "" : share.value;
    say(cut_off);
    state.ask({ cut_off }, { push: state.isNewEdit("cut-off") });
  });

  function say(cut_off) {
    const part = Math.round(100 * Number(cut_off));
    words.textContent = cut_off === "" ? "everything, best first" : `only what fewer than ${part} % of random queries reach`;
  }

  function follow() {
    const { asked } = state;
    if (document.activeElement !== share) share.value = asked.cut_off === "" ? 1 : asked.cut_off;
    say(asked.cut_off);
    fold.checked = CHOSEN.includes(asked.fold);
    choose(order, asked.order);
    choose(fusion, asked.fusion);
    choose(store, asked.store || state.store?.name || "");
    filters.classList.toggle("on", asked.where !== "");
    const isSeries = state.series !== null;
    for (const control of [order, share, fold]) control.disabled = isSeries;
    summary.hidden = !asked.q.trim() && !asked.where;
  }

  state.addEventListener("store", () => {
    const columns = state.store?.columns ?? [];
    const dated = (kind, way) => ({ date: ["oldest first", "newest first"], number: ["smallest first", "largest first"] })[kind]?.[way] ?? ["A to Z", "Z to A"][way];
    order.replaceChildren(
      el("option", { value: "" }, "best first"),
      ...columns.flatMap(({ name, kind }) => [el("option", { value: name }, `${name}, ${dated(kind, 0)}`), el("option", { value: `-${name}` }, `${name}, ${dated(kind, 1)}`)]),
    );
    const ways = state.store?.fusions ?? [];
    fusion.replaceChildren(...ways.map(({ name, title }) => el("option", { value: name }, name ? title : "the store's way")));
    fusion.parentElement.hidden = ways.length < 2;
    store.replaceChildren(...state.stores.map(({ name, num_pictures }) => el("option", { value: name }, `${name} (${count.format(num_pictures)})`)));
    store.parentElement.hidden = state.stores.length < 2;
    follow();
  });
  state.addEventListener("asked", follow);
  state.addEventListener("parts", follow);
  state.addEventListener("filters", () => filters.setAttribute("aria-expanded", String(facets.isOpen)));
  for (const event of ["answer", "error"]) state.addEventListener(event, tell);
  follow();

  function tell() {
    const { answer, hits, error } = state;
    if (error) return found.replaceChildren();
    if (!answer) return found.replaceChildren();
    const all = answer.num_found ?? null;
    const total = all === null ? `${count.format(hits.length)}${hits.length >= 60 ? " or more" : ""}` : count.format(all);
    const notes = [];
    if (answer.remark) notes.push(el("span", { class: "note" }, answer.remark));
    if (answer.left_out?.length) notes.push(el("span", { class: "note" }, `left out: ${answer.left_out.join(", ")}. The other terms keep their weights`));
    found.replaceChildren(el("b", {}, `${total} picture${total === "1" ? "" : "s"}`), el("span", { class: "soft" }, answer.time_ms === undefined ? "" : ` in ${Math.max(1, Math.round(answer.time_ms))} ms`), ...notes);
  }
}

function labelled(words, control) {
  return el("span", { class: "labelled" }, el("label", { for: control.id }, words), control);
}

/** Choose a value, also one that the list does not have, as a typed address may. */
function choose(select, value) {
  if (![...select.options].some((option) => option.value === value)) {
    if (value === "") return;
    select.append(el("option", { value }, value));
  }
  select.value = value;
}

const THEMES = ["auto", "light", "dark"];
const VIEWS = [
  ["", "grid", "Pictures"],
  ["columns", "columns", "Side by side"],
  ["map", "map", "Map"],
];

/** The view, the colours, and the keys. */
export function tools(state, keys) {
  const box = document.getElementById("tools");
  const tabs = VIEWS.map(([view, name, words]) =>
    el("button", { type: "button", class: "tab", data: { view }, title: words, "aria-label": words, on: { click: () => state.ask({ view }) } }, icon(name), el("span", {}, words)),
  );
  const theme = iconButton("theme", "Colours", () => {
    const now = document.documentElement.dataset.theme ?? "auto";
    const next = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
    if (next === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    keep("theme", next);
    name();
    state.tell("theme");
  });
  const name = () => {
    const words = `Colours: ${{ auto: "as the system", light: "light", dark: "dark" }[document.documentElement.dataset.theme ?? "auto"]}`;
    theme.title = words;
    theme.setAttribute("aria-label", words);
  };
  name();
  theme.id = "theme";
  box.append(el("div", { class: "tabs", role: "group", "aria-label": "View" }, tabs), theme, iconButton("help", "Keys and examples (?)", () => keys.show(), { id: "help" }));
  const follow = () => {
    for (const tab of tabs) tab.setAttribute("aria-pressed", String(tab.dataset.view === state.asked.view));
  };
  state.addEventListener("asked", follow);
  follow();
}
