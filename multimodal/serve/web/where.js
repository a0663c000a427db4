// Filters as text, one clause at a time: what a click on a facet adds to the `where`, or takes away. Pure functions.

const TOKEN = /`[^`]*`|"(?:""|[^"])*"|'(?:''|[^'])*'|“[^“”]*”|[()]|[^\s()`"'“”]+|\s+/gu;

/** The clauses that `and` joins at the top; one clause if the filter has an `or` there. between's own `and` is no joint. */
export function clauses(where) {
  const found = [];
  let depth = 0;
  let between = false;
  let clause = "";
  let either = false;
  for (const [token] of where.matchAll(TOKEN)) {
    if (token === "(") depth++;
    if (token === ")") depth--;
    const word = depth === 0 ? token.toLowerCase() : "";
    if (word === "between") between = true;
    if (word === "or") either = true;
    if (word === "and" && !between) {
      found.push(clause.trim());
      clause = "";
      continue;
    }
    if (word === "and") between = false;
    clause += token;
  }
  found.push(clause.trim());
  const all = found.filter(Boolean);
  return either && all.length ? [where.trim()] : all;
}

export function joined(all) {
  return all.filter(Boolean).map((clause) => (all.length > 1 && hasOr(clause) ? `(${clause})` : clause)).join(" and ");
}

/** The name of a column as a filter has it; the same as the server writes it (multimodal/search/facets.py). */
export function column(name) {
  return /^[^\s"“”'`()=<>!,]+$/u.test(name) && !/^(not|and|or)$/i.test(name) ? name : `\`${name}\``;
}

export function value(text) {
  return `"${String(text).replaceAll('"', '""')}"`;
}

/** The clauses that are about a column. */
export function clausesOf(where, name) {
  const of = column(name);
  return clauses(where).filter((clause) => clause.replace(/^[(\s]*(not\s+)?/iu, "").startsWith(`${of} `));
}

/** The filter without what it says of a column. */
export function without(where, name) {
  const own = clausesOf(where, name);
  return joined(clauses(where).filter((clause) => !own.includes(clause)));
}

/** The filter with this, and nothing else, said of a column. clause: null for nothing. */
export function withClause(where, name, clause) {
  return joined([...clauses(without(where, name)), clause ?? ""]);
}

/** A filter of several clauses as one. */
export function asOne(where) {
  return clauses(where).length > 1 ? `(${where})` : where;
}

/** The values that a filter allows in a column, as facets write them: `camera = "X100"` or `camera in ("X100", "GR")`. */
export function valuesOf(where, name) {
  const of = column(name);
  for (const clause of clauses(where)) {
    const one = clause.startsWith(`${of} = `) ? clause.slice(of.length + 3) : null;
    const many = clause.startsWith(`${of} in (`) && clause.endsWith(")") ? clause.slice(of.length + 5, -1) : null;
    const written = one ?? many;
    if (written === null) continue;
    return [...written.matchAll(/"((?:""|[^"])*)"|([^\s,"]+)/gu)].map(([, inQuotes, bare]) => inQuotes?.replaceAll('""', '"') ?? bare);
  }
  return [];
}

/** The filter with a value of a column switched on or off. */
export function toggled(where, name, text) {
  const before = valuesOf(where, name);
  const after = before.includes(text) ? before.filter((one) => one !== text) : [...before, text];
  const [only] = after;
  const clause = !after.length ? null : after.length === 1 ? `${column(name)} = ${value(only)}` : `${column(name)} in (${after.map(value).join(", ")})`;
  return withClause(where, name, clause);
}

/** The ends of the range that a filter allows in a column, as a histogram writes it; null if there is none. isOpen: the upper end is not in it. */
export function rangeOf(where, name) {
  const of = RegExp.escape?.(column(name)) ?? column(name).replaceAll(/[.*+?^${}()|[\]\\]/gu, "\\$&");
  for (const clause of clausesOf(where, name)) {
    const text = clause.replace(/^\((.*)\)$/u, "$1");
    let found = new RegExp(`^${of} between (\\S+) and (\\S+)$`, "iu").exec(text);
    if (found) return { from: found[1], to: found[2], isOpen: false };
    found = new RegExp(`^${of} >= (\\S+) and ${of} < (\\S+)$`, "iu").exec(text);
    if (found) return { from: found[1], to: found[2], isOpen: true };
    found = new RegExp(`^${of} = ([\\d.-]+)$`, "iu").exec(text);
    if (found) return { from: found[1], to: found[1], isOpen: false };
  }
  return null;
}

function hasOr(clause) {
  let depth = 0;
  for (const [token] of clause.matchAll(TOKEN)) {
    if (token === "(") depth++;
    if (token === ")") depth--;
    if (depth === 0 && token.toLowerCase() === "or") return true;
  }
  return false;
}
