// Where the map is looked at from: arithmetic between its places, x to the right and y upwards from 0 to 1, and pixels of the screen. No DOM here.
//
//     const camera = new Camera(() => redraw());
//     camera.toScreen(0.5, 0.5)                       // the middle of the screen, until it is moved

const MAX_ZOOM = 400;
const MAX_STRETCH = 1.7; // how much wider than high the map may be, to fill the page

export class Camera {
  /** changed: called when it was moved. */
  constructor(changed) {
    Object.assign(this, { changed, width: 0, height: 0, x: 0.5, y: 0.5, zoom: 1 });
  }

  /** Pixels of the screen from the left side of the map to the right one. */
  get wide() {
    return Math.min(this.width, MAX_STRETCH * this.height) * this.zoom * 0.97;
  }

  /** Pixels from the lower side to the upper one. */
  get high() {
    return Math.min(this.height, MAX_STRETCH * this.width) * this.zoom * 0.97;
  }

  toScreen(x, y) {
    return [this.width / 2 + (x - this.x) * this.wide, this.height / 2 - (y - this.y) * this.high];
  }

  toMap(left, top) {
    return [this.x + (left - this.width / 2) / this.wide, this.y - (top - this.height / 2) / this.high];
  }

  /** The view moved by pixels of the screen, x to the right and y downwards. */
  moveBy(x, y) {
    this.moveTo(this.x + x / this.wide, this.y - y / this.high);
  }

  /** The part of the map that is in view: [left, bottom, right, top], with a margin in pixels. */
  bounds(margin = 0) {
    return [...this.toMap(-margin, this.height + margin), ...this.toMap(this.width + margin, -margin)];
  }

  zoomBy(factor, left = this.width / 2, top = this.height / 2) {
    const [x, y] = this.toMap(left, top);
    this.zoom = Math.min(MAX_ZOOM, Math.max(0.8, this.zoom * factor));
    const [movedX, movedY] = this.toMap(left, top);
    this.moveTo(this.x + x - movedX, this.y + y - movedY);
  }

  moveTo(x, y) {
    this.x = Math.min(1, Math.max(0, x));
    this.y = Math.min(1, Math.max(0, y));
    this.changed();
  }

  showAll() {
    this.zoom = 1;
    this.moveTo(0.5, 0.5);
  }

  /** Look at a place so that a circle around it fills the view. */
  lookAt(x, y, radius) {
    this.zoom = Math.min(MAX_ZOOM, Math.max(1, 0.4 / Math.max(radius, 0.001)));
    this.moveTo(x, y);
  }
}
