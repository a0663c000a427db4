// A hit large: the original where the store has one, what is known of it, why it was found, and what to do with it. A <dialog> keeps the focus and
// takes Escape; the picture is moved and enlarged with pointers. (photoswipe wants the whole window, the focus and the history for itself.)

import { get } from "./api.js";
import { bar, count, el, icon, iconButton, small } from "./dom.js";
import { extended, quoted, reasons } from "./query.js";
import { column, value as written, withClause } from "./where.js";

const ENLARGED = 2; // times its own pixels, at most, before anybody enlarges it
const MOST = 8; // times the size that fits

export class Viewer {
  constructor(state, judge, grid, search) {
    Object.assign(this, { state, judge, grid, search });
    this.stage = el("div", { class: "stage" });
    this.panel = el("div", { class: "panel", tabindex: 0, role: "region", "aria-label": "About the picture" });
    this.left = iconButton("left", "The one before (left arrow)", () => this.go(-1), { class: "icon-button turn left" });
    this.right = iconButton("right", "The next one (right arrow)", () => this.go(1), { class: "icon-button turn right" });
    this.close = iconButton("close", "Close (Escape)", () => state.open(null), { class: "icon-button close" });
    this.dialog = el("dialog", { class: "viewer", "aria-label": "Picture" }, this.stage, this.left, this.right, this.panel, this.close);
    document.body.append(this.dialog);
    this.dialog.addEventListener("cancel", (event) => (event.preventDefault(), state.open(null)));
    this.dialog.addEventListener("close", () => state.picture !== null && state.open(null)); // a second Escape cannot be prevented
    addEventListener("keydown", (event) => this.dialog.open && this.key(event)); // also if a button that had the focus was switched off
    state.addEventListener("picture", () => this.show());
    state.addEventListener("judged", () => this.mark());
    zoomable(this.stage, (by) => this.go(by));
  }

  get place() {
    return this.state.hits.findIndex((hit) => hit.id === this.state.picture);
  }

  show() {
    const { state } = this;
    if (state.picture === null) {
      if (!this.dialog.open) return;
      this.asking?.abort();
      const { at } = this.grid; // closing gives the focus back to the picture that was opened; the last one seen shall have it
      this.dialog.close();
      this.grid.focus(at);
      return;
    }
    if (!this.dialog.open) {
      this.dialog.showModal();
      this.panel.focus();
    }
    const at = this.place;
    if (at >= 0) this.grid.at = at;
    this.left.disabled = at <= 0;
    this.right.disabled = at < 0 || at >= state.hits.length - 1;
    if (at >= state.hits.length - 5) this.search.more();
    this.draw(state.hits[at] ?? null);
  }

  async draw(hit) {
    const { state } = this;
    const id = state.picture;
    const asking = (this.asking?.abort(), (this.asking = new AbortController()));
    const words = hit?.text || hit?.name || `picture ${id}`;
    const kept = hit ? hit.has_thumbnail : state.store?.has_thumbnails;
    const image = el("img", { class: state.store?.has_files ? "large" : "large thumb", alt: words, src: kept ? state.thumbnail(id) : null, draggable: "false" });
    this.stage.replaceChildren(kept || state.store?.has_files ? image : el("p", { class: "soft" }, "The store keeps no picture of it."));
    this.stage.reset();
    this.panel.scrollTop = 0;
    this.about = el("div", { class: "about" });
    this.panel.replaceChildren(...this.first(hit, id), this.about);
    this.mark();
    try {
      const told = await get(`api/pictures/${id}`, { store: state.asked.store }, asking.signal);
      if (told.has_file) this.original(image, id);
      if (!hit) this.panel.replaceChildren(...this.first({ ...told, why: {}, like: [] }, id), this.about), this.mark();
      this.about.replaceChildren(...this.rest(told));
    } catch (error) {
      if (error.name !== "AbortError") this.about.replaceChildren(el("p", { role: "alert" }, error.message));
    }
  }

  /** The file itself, once it is loaded; until then the thumbnail stands there. */
  original(image, id) {
    const file = new Image();
    const store = this.state.asked.store;
    file.src = store ? `image/${id}?store=${encodeURIComponent(store)}` : `image/${id}`;
    file.decode().then(
      () => {
        if (!image.isConnected) return;
        image.src = file.src;
        image.classList.remove("thumb");
        image.style.maxWidth = `${ENLARGED * file.naturalWidth}px`;
        image.style.maxHeight = `${ENLARGED * file.naturalHeight}px`;
      },
      () => {}, // gone or not a picture any more: the thumbnail stays
    );
  }

  /** Caption, what to do, and why it was found. */
  first(hit, id) {
    const { state } = this;
    const words = hit?.text || hit?.name || `picture ${id}`;
    const does = (name, text, key, act) => el("button", { type: "button", class: "does", title: key ? `${text} (${key})` : text, on: { click: act } }, icon(name), text);
    const ask = (q) => (this.leave(), state.ask({ q, view: "" }));
    const { q } = state.asked;
    return [
      el("h2", {}, words),
      hit && hit.text ? el("p", { class: "soft" }, hit.name) : null,
      el(
        "div",
        { class: "judge", role: "group", "aria-label": "Is this what you looked for?" },
        el("button", { type: "button", class: "yes", "aria-pressed": "false", title: "Yes (y)", on: { click: () => this.judge.relevant(id, true) } }, icon("yes"), "Yes"),
        el("button", { type: "button", class: "no", "aria-pressed": "false", title: "No (n)", on: { click: () => this.judge.relevant(id, false) } }, icon("no"), "No"),
      ),
      el(
        "div",
        { class: "doing" },
        does("more", "More like this", "m", () => ask(`image:${id}`)),
        does("without", "Less like this", "l", () => ask(extended(q, `image:${id}`, "without"))),
        does("plus", "Add as term", "a", () => ask(extended(q, `image:${id}`))),
      ),
      hit && Object.keys(hit.why).length ? this.why(hit) : null,
      hit?.like?.length ? this.like(hit) : null,
    ].filter(Boolean);
  }

  /** Leave the large view for another query, as one step of the history. */
  leave() {
    this.state.picture = null;
    this.state.tell("picture");
  }

  why(hit) {
    const { state } = this;
    const isProduct = state.answer.why_is === "product";
    const terms = reasons(hit.why, state.parts);
    const most = isProduct ? 1 : Math.max(1e-9, ...terms.map(([, value]) => Math.abs(value)));
    return el(
      "section",
      {},
      el("h3", {}, "Why it was found"),
      el(
        "dl",
        { class: "why" },
        terms.map(([label, value]) => [
          el("dt", { title: label }, label),
          bar(Math.abs(value) / most, value < 0 ? "hue-minus" : state.hue(label)),
          el("dd", {}, isProduct ? `×${value.toFixed(3)}` : signed(value)),
        ]),
      ),
      el("p", { class: "soft" }, `Rank ${count.format(hit.rank)}, score ${hit.score.toFixed(4)}: ${isProduct ? "the product of these factors" : "the sum of these"}.`),
    );
  }

  like(hit) {
    const one = (id) => el("button", { type: "button", class: "picture-button", title: `picture ${id}`, "aria-label": `Open picture ${id}`, on: { click: () => this.state.open(id) } }, small(this.state.store?.has_thumbnails && this.state.thumbnail(id), String(id), { loading: "lazy" }));
    return el("section", {}, el("h3", {}, `${hit.like.length} nearly equal`), el("div", { class: "small-pictures" }, hit.like.slice(0, 24).map(one)));
  }

  rest(told) {
    const { state } = this;
    const all = [];
    const put = (term) => (this.leave(), state.ask({ q: extended(state.asked.q, term), view: "" }));
    if (told.words?.length) {
      const most = Math.max(1e-9, ...told.words.map((word) => word.score));
      all.push(
        el(
          "section",
          {},
          el("h3", {}, "Nearest words"),
          el("ul", { class: "words" }, told.words.map(({ text, score }) => el("li", {}, el("button", { type: "button", class: "suggestion", title: `+ ${text}`, on: { click: () => put(quoted(text)) } }, text, el("meter", { min: 0, max: most, value: Math.max(0, score), "aria-label": "similarity" }))))),
        ),
      );
    }
    if (told.topics?.length) {
      const most = Math.max(1e-9, ...told.topics.map((topic) => topic.share));
      all.push(
        el(
          "section",
          {},
          el("h3", {}, "Topics"),
          el(
            "dl",
            { class: "why" },
            told.topics.map(({ number, words, share }) => [
              el("dt", {}, el("button", { type: "button", class: "link", title: `+ topic:${number}`, on: { click: () => put(`topic:${number}`) } }, words.slice(0, 3).join(", ") || `topic ${number}`)),
              bar(share / most, "hue-0"),
              el("dd", {}, `${Math.round(100 * share)} %`),
            ]),
          ),
        ),
      );
    }
    const facts = Object.entries({ name: told.name, ...told.metadata }).filter(([name, value]) => value !== null && value !== "" && name !== "text" && name !== "content");
    all.push(
      el(
        "section",
        {},
        el("h3", {}, "What is known of it"),
        el("dl", { class: "facts-table" }, el("dt", {}, "id"), el("dd", {}, String(told.id)), facts.map(([name, value]) => [el("dt", {}, name), el("dd", {}, this.fact(name, value))])),
        told.has_file ? el("p", {}, el("a", { class: "link", href: `image/${told.id}${state.asked.store ? `?store=${encodeURIComponent(state.asked.store)}` : ""}`, target: "_blank", rel: "noopener" }, icon("open", 14), " Open the file")) : null,
      ),
    );
    return all;
  }

  /** A value, which filters by a click where that may find others. */
  fact(name, value) {
    const { state } = this;
    const kind = state.store?.columns.find((one) => one.name === name)?.kind;
    const text = String(value);
    if (kind !== "text" || ["name", "path", "text"].includes(name) || text.length > 80) return text;
    const filter = () => (this.leave(), state.ask({ where: withClause(state.asked.where, name, `${column(name)} = ${written(text)}`) }));
    return el("button", { type: "button", class: "link", title: `Only pictures whose ${column(name)} is this`, on: { click: filter } }, text);
  }

  mark() {
    const judged = this.state.judged.get(this.state.picture);
    this.panel.querySelector(".yes")?.setAttribute("aria-pressed", String(judged === true));
    this.panel.querySelector(".no")?.setAttribute("aria-pressed", String(judged === false));
  }

  go(by) {
    const at = this.place;
    const hit = at < 0 ? null : this.state.hits[at + by];
    if (hit) this.state.open(hit.id);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const id = this.state.picture;
    const { q } = this.state.asked;
    const does = {
      ArrowLeft: () => this.go(-1),
      ArrowRight: () => this.go(1),
      y: () => this.judge.relevant(id, true),
      n: () => this.judge.relevant(id, false),
      u: () => this.judge.undo(),
      m: () => (this.leave(), this.state.ask({ q: `image:${id}` })),
      l: () => (this.leave(), this.state.ask({ q: extended(q, `image:${id}`, "without") })),
      a: () => (this.leave(), this.state.ask({ q: extended(q, `image:${id}`) })),
    }[event.key];
    if (!does) return;
    event.preventDefault();
    event.stopPropagation();
    does();
  }
}

function signed(value) {
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;
}

/** Enlarge with wheel, double click or two fingers; move with one; swipe to turn where it is not enlarged. */
function zoomable(stage, turn) {
  let scale = 1;
  let x = 0;
  let y = 0;
  const pointers = new Map();
  let start = null;

  const image = () => stage.querySelector("img");
  const place = () => {
    const shown = image();
    if (!shown) return;
    const far = (size) => (size * (scale - 1)) / 2;
    x = Math.min(far(stage.clientWidth), Math.max(-far(stage.clientWidth), x));
    y = Math.min(far(stage.clientHeight), Math.max(-far(stage.clientHeight), y));
    shown.style.transform = scale === 1 ? "" : `translate(${x}px, ${y}px) scale(${scale})`;
    stage.classList.toggle("enlarged", scale > 1);
  };
  stage.reset = () => {
    scale = 1;
    x = y = 0;
    place();
  };
  const enlarge = (to, at) => {
    const box = stage.getBoundingClientRect();
    const [left, top] = [at.clientX - box.left - box.width / 2, at.clientY - box.top - box.height / 2];
    const next = Math.min(MOST, Math.max(1, to));
    x = left - ((left - x) * next) / scale;
    y = top - ((top - y) * next) / scale;
    scale = next;
    place();
  };

  stage.addEventListener("wheel", (event) => (event.preventDefault(), enlarge(scale * Math.exp(-event.deltaY / 300), event)), { passive: false });
  stage.addEventListener("dblclick", (event) => enlarge(scale > 1 ? 1 : 2.5, event));
  stage.addEventListener("pointerdown", (event) => {
    pointers.set(event.pointerId, event);
    stage.setPointerCapture(event.pointerId);
    start = { x, y, scale, gap: gap(), at: middle(), moved: 0 };
  });
  stage.addEventListener("pointermove", (event) => {
    if (!pointers.has(event.pointerId) || !start) return;
    pointers.set(event.pointerId, event);
    const at = middle();
    start.moved = at.clientX - start.at.clientX;
    if (pointers.size === 2) return enlarge((start.scale * gap()) / start.gap, at);
    if (scale === 1) return;
    x = start.x + at.clientX - start.at.clientX;
    y = start.y + at.clientY - start.at.clientY;
    place();
  });
  for (const end of ["pointerup", "pointercancel"]) {
    stage.addEventListener(end, (event) => {
      const isSwipe = end === "pointerup" && pointers.size === 1 && start && scale === 1 && Math.abs(start.moved) > 60;
      pointers.delete(event.pointerId);
      if (isSwipe) turn(start.moved < 0 ? 1 : -1);
      start = pointers.size ? { x, y, scale, gap: gap(), at: middle(), moved: 0 } : null;
    });
  }

  function gap() {
    const [one, other] = [...pointers.values()];
    return other ? Math.max(1, Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY)) : 1;
  }

  function middle() {
    const all = [...pointers.values()];
    const mean = (name) => all.reduce((sum, one) => sum + one[name], 0) / all.length;
    return { clientX: mean("clientX"), clientY: mean("clientY") };
  }
}
