// Drawing around points, and what is drawn as a filter. No DOM here: node tests it as it is.
//
//     withSelection('camera = "X100"', selection("3f2a9c", corners))      // camera = "X100" and map inside "3f2a9c: 120 340, ..."

import { clauses, joined } from "./where.js";

/** Corners of a filter at most: each is some ten characters of an address. */
export const MAX_CORNERS = 32;

/** A line of [x, y] with fewer corners, none of which is further than `tolerance` from the line (Douglas and Peucker, 1973). */
export function simplify(line, tolerance) {
  if (line.length < 3) return line;
  const kept = new Uint8Array(line.length);
  kept[0] = kept[line.length - 1] = 1;
  const stack = [[0, line.length - 1]];
  while (stack.length) {
    const [first, last] = stack.pop();
    let furthest = 0;
    let at = -1;
    for (let i = first + 1; i < last; i++) {
      const distance = distanceTo(line[i], line[first], line[last]);
      if (distance > furthest) (furthest = distance), (at = i);
    }
    if (furthest > tolerance) {
      kept[at] = 1;
      stack.push([first, at], [at, last]);
    }
  }
  return line.filter((_, i) => kept[i]);
}

function distanceTo([x, y], [x1, y1], [x2, y2]) {
  const [dx, dy] = [x2 - x1, y2 - y1];
  const length = dx * dx + dy * dy;
  const along = length ? Math.max(0, Math.min(1, ((x - x1) * dx + (y - y1) * dy) / length)) : 0;
  return Math.hypot(x - x1 - along * dx, y - y1 - along * dy);
}

/** A closed line of places (0 to 1) as at most MAX_CORNERS corners. */
export function asPolygon(line, tolerance = 0.001) {
  let corners = simplify(line, tolerance);
  while (corners.length > MAX_CORNERS) corners = simplify(line, (tolerance *= 1.5));
  return corners;
}

/** The test of a filter that is met within a polygon of places (0 to 1) on the map of this version; in thousandths, with so many decimals. */
export function selection(version, corners, decimals = 1) {
  const thousandths = (value) => String(Number((1000 * Math.min(1, Math.max(0, value))).toFixed(decimals)));
  return `map inside "${version}: ${corners.map((corner) => corner.map(thousandths).join(" ")).join(", ")}"`;
}

const SELECTION = /^map\s+inside\s/i;

/** The filter without what was selected on the map. */
export function withoutSelection(where) {
  return joined(clauses(where).filter((clause) => !SELECTION.test(clause)));
}

/** The filter with this selection in place of the one before. */
export function withSelection(where, selected) {
  return joined([...clauses(where).filter((clause) => !SELECTION.test(clause)), selected]);
}

/** The corners of the selection in a filter, as places from 0 to 1; null if there is none. */
export function cornersOf(where) {
  const found = /map\s+inside\s+"(?:[0-9a-z]+\s*:)?([^"]*)"/i.exec(where);
  return found ? found[1].split(",").map((corner) => corner.trim().split(/\s+/).map((value) => Number(value) / 1000)) : null;
}
