// Where each picture is: rows of equal width, each as high as its pictures then are, as on a contact sheet. Pure functions.
//
// The sizes are known before the pictures are loaded, so nothing moves when they come, and what is on the screen is found by arithmetic: a
// library that measures elements (@tanstack/virtual-core was tried on paper) has nothing to measure here.

export const GAP = 6;
const NARROWEST = 0.5; // a panorama and a pole are cut, so that neither hides its row
const WIDEST = 2.6;

/** Width over height of a hit's picture; learned: what was seen of it, where no column has it; 1 where it is unknown. */
export function aspectOf(hit, learned = 1) {
  const aspect = hit.width && hit.height ? hit.width / hit.height : learned;
  return Math.min(WIDEST, Math.max(NARROWEST, aspect));
}

/**
 * Rows of pictures across `width`, near `target` high.
 * aspects: of each picture. foot: of each tile, the height of what is under its picture.
 * Returns rows {top, height, from, to} and boxes [{left, width}]; a last row that is not full keeps the target height.
 */
export function layout(aspects, width, target, foot) {
  const rows = [];
  const boxes = [];
  let from = 0;
  let top = 0;
  while (from < aspects.length) {
    let to = from;
    let sum = 0;
    let best = null; // where to break: the height nearest to the target
    while (to < aspects.length) {
      sum += aspects[to++];
      const height = (width - GAP * (to - from - 1)) / sum;
      const off = Math.abs(Math.log(height / target));
      if (best && off > best.off) break;
      best = { to, height, off };
      if (height < target / 3) break;
    }
    const isLast = best.to === aspects.length;
    const height = isLast && best.height > target ? target : best.height;
    let left = 0;
    for (let at = from; at < best.to; at++) {
      const wide = aspects[at] * height;
      boxes.push({ left, width: wide });
      left += wide + GAP;
    }
    rows.push({ top, height, from, to: best.to });
    top += height + foot + GAP;
    from = best.to;
  }
  return { rows, boxes, height: Math.max(0, top - GAP) };
}

/** The rows that touch [start, end): [first, last + 1]. */
export function visible(rows, start, end, foot) {
  let low = 0;
  let high = rows.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (rows[middle].top + rows[middle].height + foot < start) low = middle + 1;
    else high = middle;
  }
  let last = low;
  while (last < rows.length && rows[last].top < end) last++;
  return [low, last];
}

/** The place that an arrow key goes to from `at`. rows, boxes: of `layout`. */
export function step(key, at, { rows, boxes }) {
  const last = boxes.length - 1;
  if (key === "ArrowLeft") return Math.max(0, at - 1);
  if (key === "ArrowRight") return Math.min(last, at + 1);
  if (key === "Home") return 0;
  if (key === "End") return last;
  const row = rows.findIndex(({ from, to }) => from <= at && at < to);
  const next = rows[row + (key === "ArrowDown" ? 1 : -1)];
  if (!next) return at;
  const middle = boxes[at].left + boxes[at].width / 2;
  const far = (place) => Math.abs(boxes[place].left + boxes[place].width / 2 - middle);
  let best = next.from;
  for (let place = next.from + 1; place < next.to; place++) if (far(place) < far(best)) best = place;
  return best;
}
