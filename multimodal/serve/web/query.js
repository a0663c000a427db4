// The text of a query from its parts, and back to words. Pure functions; the grammar itself is the server's (multimodal/search/grammar.py).
//
// A part, as /api/terms gives it: label, kind, content, weight (positive), role ("wanted", "subtracted", "without", "swap"), old (of a swap).

const WORD = /^[^\s"“”()+*−\-–][^\s"“”()+*−]*$/u;
const KEYWORD = /^(without|instead|between)$/i;
const NAMED = /^(image|near|topic|export):/i;

/** A phrase as a term: quoted where it would mean something else. */
export function quoted(phrase) {
  const words = phrase.trim().split(/\s+/u);
  const plain = words.every((word) => WORD.test(word) && !KEYWORD.test(word) && !NAMED.test(word));
  const text = words.join(" ");
  return plain ? text : text.includes('"') ? `“${text.replaceAll(/[“”]/gu, "")}”` : `"${text}"`;
}

/** A weight as it is written before a term; nothing for 1. */
export function weighted(weight) {
  const rounded = Number(Math.abs(weight).toFixed(2));
  return rounded === 1 ? "" : `${rounded}*`;
}

/** The text of a query. Parts that exclude come last, since what follows `without` is excluded. */
export function compose(parts) {
  const shown = (part) => weighted(part.weight) + (part.role === "swap" ? `${part.label} instead of ${part.old}` : part.label);
  const added = parts.filter((part) => part.role !== "without");
  added.sort((one, other) => (one.role === "subtracted") - (other.role === "subtracted"));
  const text = added.map((part) => `${part.role === "subtracted" ? "- " : "+ "}${shown(part)}`);
  const without = parts.filter((part) => part.role === "without").map((part) => `without ${shown(part)}`);
  return [...text, ...without].join(" ").replace(/^\+ /, "");
}

/** A query and one more term; sign: "+", "-" or "without". */
export function extended(query, term, sign = "+") {
  const text = query.trim();
  if (isSeries(text)) return sign === "+" ? term : `${sign} ${term}`;
  if (!text) return sign === "+" ? term : `${sign} ${term}`;
  return `${text} ${sign} ${term}`;
}

/** A series goes from one query to another, and is edited as text alone. */
export function isSeries(query) {
  return /^\s*between\s.*\sand\s.*\sin\s+\d+\s*$/isu.test(query);
}

/** What an answer calls a part: the key in a hit's `why`. */
export function calledIn(part) {
  if (part.role === "subtracted") return `- ${part.label}`;
  if (part.role === "without") return `without ${part.label}`;
  return part.role === "swap" && !part.label.includes(" instead of ") ? `${part.label} instead of ${part.old}` : part.label;
}

/** Parts in the order of the text; the server may give them in another. */
export function inOrder(parts, query) {
  const text = query.toLowerCase();
  const place = (part) => {
    const at = text.indexOf(part.label.toLowerCase());
    return at < 0 ? text.length : at;
  };
  return parts.map((part, index) => ({ part, index, at: place(part) })).sort((a, b) => a.at - b.at || a.index - b.index).map(({ part }) => part);
}

/** What each term does to a hit, in the order of the query: an object of JavaScript puts names that are numbers, as of years, first. */
export function reasons(why, parts) {
  const order = new Map(parts.map((part, at) => [calledIn(part), at]));
  return Object.entries(why).sort(([one], [other]) => (order.get(one) ?? 0) - (order.get(other) ?? 0));
}

/**
 * The command that finds the same. store: its name. An address may be anybody's, and the command is pasted into a shell: signs that steer a
 * terminal are left out, everything else is quoted, and no query is taken for an option.
 */
export function command(asked, store) {
  const plain = (text) => text.replaceAll(/[\p{Cc}\p{Cs}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]+/gu, " ").trim();
  const quote = (text) => (/^[\w./:=-]+$/.test(text) ? text : `'${plain(text).replaceAll("'", "'\\''")}'`);
  const options = [
    ["--where", asked.where],
    ["--order", asked.order],
    ["--cut-off", asked.cut_off],
    ["--fusion", asked.fusion],
  ].filter(([, value]) => value.trim());
  const named = options.map(([name, value]) => (value.startsWith("-") ? `${name}=${quote(value)}` : `${name} ${quote(value)}`));
  if (["true", "on"].includes(asked.fold)) named.push("--fold");
  const last = asked.q.trim().startsWith("-") ? ["--", quote(asked.q)] : [];
  return ["multimodal search", `--store ${quote(store)}`, ...(last.length ? [] : [quote(asked.q)]), ...named, ...last].join(" ");
}
