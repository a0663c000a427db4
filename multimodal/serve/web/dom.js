// Making elements. Data becomes text nodes and attributes, never markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element. given: attributes; true is an empty one, false and null none. `on` has listeners, `data` data attributes. */
export function el(tag, given = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (name === "on") for (const [event, listener] of Object.entries(value)) made.addEventListener(event, listener);
    else if (name === "data") Object.assign(made.dataset, value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

export function svg(tag, given = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(given)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const PATHS = {
  picture: "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15.5 9.5h.01",
  close: "M6 6l12 12M18 6L6 18",
  without: "M5 12h14",
  swap: "M4 9h14l-4-4M20 15H6l4 4",
  undo: "M9 7L4 12l5 5M4 12h10a6 6 0 0 1 6 6",
  plus: "M12 5v14M5 12h14",
  yes: "M5 13l4 4L19 7",
  no: "M6 6l12 12M18 6L6 18",
  left: "M15 5l-7 7 7 7",
  right: "M9 5l7 7-7 7",
  filter: "M4 6h16M7 12h10M10 18h4",
  copy: "M9 9h10v10H9zM5 15V5h10",
  link: "M10 14a4 4 0 0 0 6 0l3-3a4 4 0 0 0-6-6l-1 1M14 10a4 4 0 0 0-6 0l-3 3a4 4 0 0 0 6 6l1-1",
  theme: "M12 4a8 8 0 1 0 0 16zM12 4a8 8 0 0 1 0 16",
  help: "M9.5 9.5a2.5 2.5 0 1 1 3.5 2.3c-.6.3-1 .8-1 1.7M12 17h.01",
  grid: "M4 4h7v7H4zM13 4h7v7h-7zM4 13h7v7H4zM13 13h7v7h-7z",
  columns: "M4 4h7v16H4zM13 4h7v16h-7z",
  map: "M4 6l5-2 6 2 5-2v14l-5 2-6-2-5 2zM9 4v14M15 6v14",
  open: "M14 4h6v6M20 4l-9 9M18 14v6H4V6h6",
  more: "M4 12a8 8 0 0 1 14-5l2 2M20 4v5h-5M20 12a8 8 0 0 1-14 5l-2-2M4 20v-5h5",
};

/** A line drawing of 24 by 24; its button has the words. */
export function icon(name, size = 18) {
  return svg(
    "svg",
    { viewBox: "0 0 24 24", width: size, height: size, class: "icon", "aria-hidden": "true" },
    svg("path", { d: PATHS[name] }),
  );
}

/** A button with an icon, and words for those who do not see it. */
export function iconButton(name, words, on, given = {}) {
  return el("button", { type: "button", class: "icon-button", "aria-label": words, title: words, on: { click: on }, ...given }, icon(name));
}

/** A small picture, or words where the store keeps none. */
export function small(address, words, given = {}) {
  return address ? el("img", { alt: "", src: address, ...given }) : el("span", { class: "no-thumbnail" }, words);
}

/** The class that colours the parts of a page that belong to a query's term. */
export function hueOf(index) {
  return `hue-${index % 8}`;
}

export const count = new Intl.NumberFormat("en");

/** A bar as wide as a share from 0 to 1. An SVG, since the page allows no style attributes. */
export function bar(share, hue) {
  const width = `${Math.round(1000 * Math.min(1, Math.max(0, share))) / 10}%`;
  return el("dd", { class: `bar ${hue}` }, svg("svg", { width: "100%", height: 6, "aria-hidden": "true" }, svg("rect", { width, height: 6 })));
}

const OURS = "multimodal "; // other programs on this machine may share the address, and with it what a browser keeps

/** What this browser keeps from the last visit, or null; always null where it keeps nothing. */
export function kept(name) {
  try {
    return localStorage.getItem(OURS + name);
  } catch {
    return null;
  }
}

export function keep(name, value) {
  try {
    localStorage.setItem(OURS + name, value);
  } catch {
    // until the page is left
  }
}

let toasting = 0;

/** A line at the foot of the page for some seconds, with at most one thing to do. */
export function toast(text, action = null, act = null) {
  document.getElementById("toast")?.remove();
  const button = action && el("button", { type: "button", on: { click: () => (shown.remove(), act()) } }, action);
  const shown = el("div", { id: "toast", role: "status" }, el("span", {}, text), button);
  (document.querySelector("dialog[open]") ?? document.body).append(shown);
  clearTimeout(toasting);
  toasting = setTimeout(() => shown.remove(), 6000);
}

/** Copies a text, and says so. */
export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    toast(`Copied ${what}.`);
  } catch {
    toast(text); // a page without permission, or not over HTTPS: it can be copied by hand
  }
}
