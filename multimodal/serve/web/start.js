// Nothing asked yet: queries to try, each with its first pictures; and what to try where nothing was found.

import { get } from "./api.js";
import { el, small } from "./dom.js";
import { isSeries } from "./query.js";
import { clauses, joined } from "./where.js";

const NUM = 4;
const MOST = 8; // examples
const CUT_OFF = 0.9; // an example is shown if the store has pictures of it

export function start(state) {
  const main = document.querySelector("main");
  const box = el("section", { id: "welcome", "aria-label": "Queries to try" });
  const empty = el("section", { id: "empty", role: "status" });
  main.insertBefore(box, document.getElementById("columns"));
  main.insertBefore(empty, box);
  let drawn = null;

  async function examples() {
    if (state.asked.q.trim() || state.asked.view === "map") document.getElementById("start")?.remove();
    box.hidden = Boolean(state.asked.q.trim()) || state.asked.view === "map";
    if (box.hidden || !state.store || drawn === state.store.name) return;
    const { name, num_pictures, family } = state.store;
    drawn = name;
    document.getElementById("start")?.remove();
    const cards = state.store.examples.map((query) => el("a", { class: "example", href: `?${new URLSearchParams({ q: query })}`, data: { query } }, el("span", { class: "example-pictures" }, Array.from({ length: NUM }, () => el("span", { class: "waiting" }))), el("code", {}, query)));
    box.replaceChildren(
      el("h1", {}, `${num_pictures.toLocaleString("en")} pictures, in words`),
      el("p", { class: "soft" }, "Type what you look for. Words side by side are one phrase; + wants both, without excludes, instead of swaps. Drop a picture anywhere to search with it."),
      el("div", { class: "examples-grid", title: family }, cards),
    );
    let shown = 0;
    for (const card of cards) {
      if (box.hidden || shown === MOST) {
        card.remove();
        continue;
      }
      const { query } = card.dataset;
      try {
        const { hits } = await get("api/search", { q: query, k: NUM, store: state.asked.store, cut_off: isSeries(query) ? "" : CUT_OFF });
        if (hits.length < NUM) {
          card.remove();
          continue;
        }
        card.firstChild.replaceChildren(...hits.slice(0, NUM).map((hit) => small(state.small(hit), hit.text || hit.name)));
        shown++;
      } catch (error) {
        card.firstChild.replaceChildren(el("span", { class: "soft" }, error.message));
      }
    }
  }

  box.addEventListener("click", (event) => {
    const card = event.target.closest(".example");
    if (!card || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    state.ask({ q: card.dataset.query });
  });

  function nothing() {
    const { asked, answer, hits } = state;
    if (state.isUnknown && !hits.length) {
      empty.hidden = false;
      return empty.replaceChildren(el("h2", {}, "Nothing of this is known here"), el("p", { class: "soft" }, "The words above have near spellings, where there are any. Other words, or a picture, may do better."));
    }
    const isEmpty = Boolean(asked.q.trim()) && answer !== null && !hits.length && !state.error && asked.view !== "columns";
    empty.hidden = !isEmpty;
    if (!isEmpty) return empty.replaceChildren();
    const tries = [];
    const offer = (words, patch) => tries.push(el("li", {}, el("button", { type: "button", class: "tool", on: { click: () => state.ask(patch) } }, words)));
    if (asked.cut_off) offer("Show everything, best first", { cut_off: "" });
    for (const clause of clauses(asked.where).slice(0, 4)) offer(`Without the filter ${clause}`, { where: joined(clauses(asked.where).filter((one) => one !== clause)) });
    const excluded = state.parts.filter((part) => part.role === "without");
    if (excluded.length && asked.q.includes(" without ")) offer("Without what is excluded", { q: asked.q.slice(0, asked.q.indexOf(" without ")) });
    empty.replaceChildren(el("h2", {}, "No picture to show"), el("p", { class: "soft" }, answer.remark || "Nothing meets the filter."), el("ul", {}, tries));
  }

  for (const event of ["asked", "store"]) state.addEventListener(event, examples);
  for (const event of ["answer", "error", "asked"]) state.addEventListener(event, nothing);
  nothing();
}
