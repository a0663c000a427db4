// Keys for the whole page, and the dialog that lists them.

import { el, iconButton } from "./dom.js";

const KEYS = [
  ["/", "to the search line"],
  ["← → ↑ ↓", "from picture to picture"],
  ["Enter", "open the picture large; in the line, search"],
  ["Escape", "close; from the pictures, back to the line"],
  ["y  n", "judge: yes, no"],
  ["u", "take the last judgement back"],
  ["m  l  a", "more like this, less like this, add as term"],
  ["f", "filters"],
  ["g  s  v", "pictures as a grid, side by side, as a map"],
  ["?", "this list"],
];
const QUERIES = [
  ["red dress", "words side by side are one phrase"],
  ["dog + beach", "pictures that show both"],
  ["beach without people", "the first, and not the second"],
  ["woman instead of man", "a swap, after something else: image:7 + woman instead of man"],
  ["between summer and winter in 5", "five pictures on the way"],
  ["2*beach + dog", "weights"],
  ['"rock + roll"', "quotes, for a phrase with signs in it"],
];

export class Keys {
  constructor(state, { line, grid, facets, judge }) {
    this.dialog = el(
      "dialog",
      { class: "keys", "aria-labelledby": "keys-title" },
      iconButton("close", "Close", () => this.dialog.close(), { class: "icon-button close" }),
      el("h2", { id: "keys-title" }, "Keys"),
      el("dl", {}, KEYS.map(([key, words]) => [el("dt", {}, key.split("  ").map((one) => el("kbd", {}, one))), el("dd", {}, words)])),
      el("h2", {}, "Queries"),
      el("dl", {}, QUERIES.map(([query, words]) => [el("dt", {}, el("code", {}, query)), el("dd", {}, words)])),
    );
    document.body.append(this.dialog);
    addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || document.querySelector("dialog[open]")) return;
      const inField = event.target.closest("input:not([type=range], [type=checkbox]), select, textarea");
      if (inField) {
        if (event.key === "ArrowDown" && event.target.id === "q" && state.hits.length) event.preventDefault(), grid.focus();
        return;
      }
      const tile = event.target.closest(".tile[data-id]");
      const id = tile ? Number(tile.dataset.id) : null;
      const does = {
        "/": () => line.focus(),
        "?": () => this.show(),
        f: () => facets.toggle(),
        g: () => state.ask({ view: "" }),
        s: () => state.ask({ view: "columns" }),
        v: () => state.ask({ view: "map" }),
        u: () => judge.undo(),
        ...(tile ? { y: () => judge.relevant(id, true), n: () => judge.relevant(id, false), Escape: () => line.focus() } : {}),
      }[event.key];
      if (!does) return;
      event.preventDefault();
      does();
    });
  }

  show() {
    if (!this.dialog.open) this.dialog.showModal();
  }
}
