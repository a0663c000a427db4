// The query's terms as chips: each with its colour, kind, weight on a slider, and buttons that put it into another role. The text of the query
// stays the truth: a chip writes it anew, and comes back from it.

import { el, icon, iconButton } from "./dom.js";
import { calledIn, compose, quoted } from "./query.js";

const MOST = 3; // of a slider; a weight that was typed may be more

export function chips(state) {
  const place = document.getElementById("parts");
  let list = null;
  let sliding = null;
  state.addEventListener("parts", () => {
    if (sliding) return; // its slider is held: a new one would drop it
    draw();
  });

  function draw() {
    const focused = focusIn(place);
    list = el("ul", { class: "chips", "aria-label": "Terms of the query" });
    const { parts } = state;
    if (state.series) {
      list.append(el("li", { class: "chip series" }, el("b", {}, `a series of ${state.series}`), el("span", { class: "kind" }, "from one query to the other, edited as text")));
    } else {
      list.append(...parts.map((part, index) => chip(part, index)));
    }
    place.replaceChildren(...(parts.length || state.series ? [list] : []));
    focused?.();
  }

  /** Write the query with other parts. */
  function write(change, push = true) {
    const parts = state.parts.map((part) => ({ ...part }));
    const changed = change(parts) ?? parts;
    state.ask({ q: compose(changed.filter((part) => part !== null)) }, { push, by: "chip" });
  }

  function chip(part, index) {
    const hue = part.known === false ? "hue-minus" : state.hue(calledIn(part));
    const made = el("li", { class: `chip ${hue} ${part.role}${part.known === false ? " unknown" : ""}`, data: { index, label: part.label } });
    made.append(el("div", { class: "chip-top" }, face(part), el("b", { class: "label" }, ...named(part)), el("span", { class: "kind" }, kindOf(part)), remover(part, index)));
    made.append(part.known === false ? spellings(part, index) : el("div", { class: "chip-foot" }, slider(part, index), roles(part, index, made)));
    if (part.known !== false && part.spellings?.length) made.append(spellings(part, index));
    return made;
  }

  function named(part) {
    if (part.role === "swap") return [part.label.split(" instead of ")[0], el("i", {}, " instead of "), part.old];
    const sign = { subtracted: "− ", without: "without " }[part.role];
    const text = part.kind === "image" && part.content.startsWith("up-") ? "your picture" : part.label;
    return sign ? [el("i", {}, sign), text] : [text];
  }

  function face(part) {
    if (part.kind !== "image" && part.kind !== "near") return null;
    const uploaded = state.uploads.get(part.content) ?? (part.content.startsWith("up-") ? state.thumbnail(part.content) : null);
    const isHit = /^\d+$/.test(part.content) && part.known && state.store?.has_thumbnails !== false;
    if (!uploaded && !isHit) return null;
    return el("img", { class: "face", alt: "", src: uploaded ?? state.thumbnail(part.content) });
  }

  function remover(part, index) {
    return iconButton("close", `Remove ${part.label}`, () => write((parts) => parts.filter((_, at) => at !== index)), { "data-does": "remove" });
  }

  /** What else the term can be. */
  function roles(part, index, made) {
    const put = (role) => () => write((parts) => void Object.assign(parts[index], { role, old: null }));
    const all = [];
    if (part.role === "wanted") {
      all.push(el("button", { type: "button", class: "small", title: `Exclude ${part.label}`, data: { does: "without" }, on: { click: put("without") } }, "without"));
      all.push(el("button", { type: "button", class: "small", title: `${part.label} in the place of something else`, data: { does: "instead" }, on: { click: () => swap(part, index, made) } }, "instead of…"));
    } else if (part.role === "swap") {
      const reversed = () =>
        write((parts) => {
          const [label, old] = [parts[index].label.split(" instead of ")[0], parts[index].old];
          Object.assign(parts[index], { label: old, old: label });
        });
      const apart = () => write((parts) => void Object.assign(parts[index], { role: "wanted", label: parts[index].label.split(" instead of ")[0], old: null }));
      all.push(iconButton("swap", "The other way round", reversed, { "data-does": "reverse" }));
      all.push(el("button", { type: "button", class: "small", data: { does: "apart" }, on: { click: apart } }, "no swap"));
    } else {
      all.push(el("button", { type: "button", class: "small", title: `Look for ${part.label}`, data: { does: "want" }, on: { click: put("wanted") } }, "want"));
    }
    return el("span", { class: "chip-buttons" }, all);
  }

  /** Ask what the term should take the place of: another term of the query, or one that is typed. */
  function swap(part, index, made) {
    const others = state.parts.map((other, at) => ({ other, at })).filter(({ other, at }) => at !== index && other.role !== "swap");
    const field = el("input", { class: "old", "aria-label": `${part.label} instead of what?`, placeholder: "instead of what?", autocomplete: "off" });
    const done = (old, at = -1) =>
      write((parts) => {
        Object.assign(parts[index], { role: "swap", old });
        return parts.filter((_, place) => place !== at);
      });
    const form = el(
      "form",
      { class: "swap", on: { submit: (event) => (event.preventDefault(), field.value.trim() && done(written(field.value))) } },
      field,
      others.map(({ other, at }) => el("button", { type: "button", class: "small", on: { click: () => done(other.label, at) } }, other.label)),
      el("button", { class: "small" }, "swap"),
    );
    form.addEventListener("keydown", (event) => event.key === "Escape" && (event.stopPropagation(), draw()));
    made.querySelector(".swap")?.remove();
    made.append(form);
    field.focus();
  }

  function slider(part, index) {
    const most = Math.max(MOST, part.weight);
    const shown = el("output", { class: "weight" }, `× ${Number(part.weight.toFixed(2))}`);
    const range = el("input", { type: "range", min: 0.1, max: most, step: 0.1, value: part.weight, "aria-label": `Weight of ${part.label}` });
    range.addEventListener("input", () => {
      sliding = range;
      const weight = Number(range.value);
      shown.textContent = `× ${weight}`;
      write((parts) => void (parts[index].weight = weight), state.isNewEdit(`weight ${part.label}`));
      state.parts[index].weight = weight;
    });
    range.addEventListener("change", () => (sliding = null));
    range.addEventListener("dblclick", () => write((parts) => void (parts[index].weight = 1)));
    return el("div", { class: "chip-weight" }, range, shown);
  }

  /** Each is the term with its unknown words replaced. */
  function spellings(part, index) {
    const unknown = Object.keys(part.unknown ?? {}).join(", ") || part.content;
    const corrected = (content) => () => write((parts) => void Object.assign(parts[index], { label: quoted(content), content }));
    return el(
      "div",
      { class: "spellings" },
      part.spellings?.length ? `${unknown} is not known. ` : `${unknown} is not known here, and nothing is spelt like it.`,
      (part.spellings ?? []).slice(0, 4).map((word) => el("button", { type: "button", class: "small spelling", on: { click: corrected(word) } }, word)),
    );
  }

  function written(text) {
    return /^(image|near|topic|export):/i.test(text.trim()) || /^["“]/.test(text.trim()) ? text.trim() : quoted(text);
  }
}

function kindOf(part) {
  const where = part.export ? ` · scored by ${part.export}` : "";
  if (part.kind === "topic") return `topic${part.words?.length ? `: ${part.words.slice(0, 4).join(", ")}` : ""}${where}`;
  if (part.kind === "near") return `around a picture${where}`;
  if (part.kind === "image") return `picture${where}`;
  return (/\s/u.test(part.content) ? "phrase" : "word") + where;
}

/** What puts the focus back where it was among the chips, once they are drawn again. */
function focusIn(place) {
  const at = document.activeElement;
  const old = at?.closest?.(".chip");
  if (!old || !place.contains(at)) return null;
  const { index } = old.dataset;
  const { does } = at.dataset;
  const isRange = at.type === "range";
  return () => {
    const made = place.querySelector(`.chip[data-index="${index}"]`) ?? place.querySelector(".chip:last-child");
    const again = isRange ? made?.querySelector("input[type=range]") : made?.querySelector(`[data-does="${does}"]`);
    (again ?? made?.querySelector("button") ?? document.getElementById("q")).focus({ preventScroll: true });
  };
}
