// The search line: what is typed is asked at once; what is wrong is shown under it, with a caret; pictures are dropped, pasted or chosen.

import { post } from "./api.js";
import { el, icon, iconButton, toast } from "./dom.js";
import { extended, quoted } from "./query.js";

const LATER = [0, 429, 503]; // no answer, too busy, too slow: what may be better later
const PAUSE_MS = 40; // after a key that comes sooner than that after another, as when one is held down: a fast typist's are 60 to 100 apart

export function line(state) {
  const form = document.getElementById("line");
  const input = document.getElementById("q");
  const message = document.getElementById("message");
  let timer = 0;
  let last = -PAUSE_MS;

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    state.edited = null;
    take();
    document.getElementById("hits").scrollIntoView?.({ block: "nearest" });
  });
  input.addEventListener("input", ({ timeStamp }) => {
    clearTimeout(timer);
    timer = setTimeout(take, timeStamp - last < PAUSE_MS ? PAUSE_MS : 0);
    last = timeStamp;
  });

  function take() {
    clearTimeout(timer);
    state.ask({ q: input.value }, { push: state.isNewEdit("line"), by: "line" });
  }

  state.addEventListener("asked", ({ detail }) => {
    if (detail.by !== "line") input.value = state.asked.q;
  });

  state.addEventListener("error", () => {
    message.replaceChildren(...(state.error ? [told(state.error)] : []));
    for (const [name, value] of [["aria-invalid", "true"], ["aria-describedby", "error"]]) {
      if (state.error) input.setAttribute(name, value);
      else input.removeAttribute(name);
    }
  });

  /** A message with its query and caret under it, as in a terminal. */
  function told(error) {
    const shown = el("div", { class: "error", role: "alert", id: "error" });
    const [first, ...rest] = error.message.split("\n");
    shown.append(el("p", {}, first));
    if (rest.length) shown.append(el("pre", {}, rest.join("\n")));
    if (LATER.includes(error.status)) {
      shown.append(el("button", { type: "button", class: "small", on: { click: () => state.tell("retry") } }, "Try again"));
    }
    if (error.position !== null && !first.startsWith("where")) {
      shown.append(
        el("button", { type: "button", class: "small", on: { click: () => (input.focus(), input.setSelectionRange(error.position, error.position + 1)) } }, "Go there"),
      );
    }
    return shown;
  }

  pictures(state, form);
  return { focus: () => (input.focus(), input.select()) };
}

/** Dropping, pasting and choosing pictures. */
function pictures(state, form) {
  const file = el("input", { type: "file", accept: "image/*", id: "file", class: "hidden", tabindex: -1, "aria-label": "A picture as a term" });
  const choose = iconButton("picture", "Search with a picture: choose, drop or paste one", () => file.click(), { id: "choose" });
  form.querySelector(".field").insertBefore(choose, document.getElementById("go"));
  form.append(file);
  file.addEventListener("change", () => {
    if (file.files.length) add(file.files[0]);
    file.value = "";
  });

  document.addEventListener("paste", (event) => {
    const pasted = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
    if (pasted) event.preventDefault(), add(pasted);
  });
  let over = 0;
  const mark = (change) => document.body.classList.toggle("dropping", (over = Math.max(0, over + change)) > 0);
  addEventListener("dragenter", (event) => hasFiles(event) && mark(1));
  addEventListener("dragleave", (event) => hasFiles(event) && mark(-1));
  addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    over = 0;
    mark(0);
    const dropped = [...event.dataTransfer.files].find((one) => one.type.startsWith("image/"));
    dropped ? add(dropped) : toast("That is no picture.");
  });
  // a picture of the grid, dragged onto the line
  form.addEventListener("dragover", (event) => event.dataTransfer.types.includes("application/x-hit") && event.preventDefault());
  form.addEventListener("drop", (event) => {
    const id = event.dataTransfer.getData("application/x-hit");
    if (id) event.preventDefault(), state.ask({ q: extended(state.asked.q, `image:${id}`) });
  });

  async function add(picture) {
    const { store } = state;
    if (store && store.takes_pictures === false) return toast(store.takes_pictures_not ?? "This store takes no pictures: start the server with --export.");
    choose.classList.add("busy");
    try {
      const { content } = await post("api/pictures", picture, { store: state.asked.store });
      state.uploads.set(content, URL.createObjectURL(picture));
      state.ask({ q: extended(state.asked.q, `image:${content}`) });
    } catch (error) {
      toast(error.message);
    } finally {
      choose.classList.remove("busy");
    }
  }
}

function hasFiles(event) {
  return event.dataTransfer?.types.includes("Files");
}

/** Words that are near in the space, one click away: a click adds one, and the small sign excludes it. */
export function suggestions(state) {
  const near = document.getElementById("near");
  state.addEventListener("parts", () => {
    const all = (state.suggestions ?? []).slice(0, 8);
    near.replaceChildren(
      ...(all.length ? [el("span", { class: "soft" }, "Near:"), el("ul", { "aria-label": "Words near the query" }, all.map(one))] : []),
    );
  });

  function one({ text, why }) {
    const put = (sign) => state.ask({ q: extended(state.asked.q, quoted(text), sign) });
    return el(
      "li",
      {},
      el("button", { type: "button", class: "suggestion", title: why || `+ ${text}`, on: { click: () => put("+") } }, icon("plus", 12), text),
      el("button", { type: "button", class: "suggestion minus", "aria-label": `without ${text}`, title: `without ${text}`, on: { click: () => put("without") } }, icon("without", 12)),
    );
  }
}
