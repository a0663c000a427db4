// 100,000 points in one draw call of WebGL2, and which of them is under the pointer. No library: those that there are compile JavaScript at
// run time, which the page's Content-Security-Policy forbids.

const VERTEX = `#version 300 es
in vec2 place;
in float strength;
uniform vec2 scale, centre;
uniform float size, lit;
out float alpha;
void main() {
  gl_Position = vec4((place - centre) * scale, 0.0, 1.0);
  gl_PointSize = size * (lit > 0.0 ? 1.0 + 0.5 * strength : 1.0);
  alpha = strength;
}`;

const FRAGMENT = `#version 300 es
precision mediump float;
in float alpha;
uniform vec4 colour;
uniform float edge, halo;
out vec4 drawn;
void main() {
  float distance = length(gl_PointCoord - 0.5) * 2.0;
  float disc = 1.0 - smoothstep(1.0 - edge, 1.0, distance);
  float glow = halo * exp(-6.0 * distance * distance);
  float shown = (halo > 0.0 ? glow : disc) * alpha * colour.a;
  drawn = vec4(colour.rgb * shown, shown);
}`;

/** What /api/map and /api/map/passing send: the header, and the bytes after it. */
export function unpack(buffer) {
  const view = new DataView(buffer);
  if (view.getUint32(0, true) !== 0x3150414d) throw new Error("these bytes are no map");
  const length = view.getUint32(4, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  return { header, start: 8 + length };
}

/** The map as arrays: ids (n), places (2n) uint16. */
export function unpackMap(buffer) {
  const { header, start } = unpack(buffer);
  const Ids = header.ids === "u4" ? Uint32Array : Float64Array;
  const ids = new Ids(buffer, start, header.num);
  return { header, ids, places: new Uint16Array(buffer, start + ids.byteLength, 2 * header.num) };
}

/** Points in 2^BITS by 2^BITS cells, to find those in a rectangle. */
export class Cells {
  static BITS = 8;

  constructor(places) {
    const { BITS } = Cells;
    const num = places.length / 2;
    const shift = 16 - BITS;
    this.places = places;
    this.starts = new Uint32Array((1 << (2 * BITS)) + 1);
    const cell = new Uint32Array(num);
    for (let i = 0; i < num; i++) {
      cell[i] = ((places[2 * i + 1] >> shift) << BITS) | (places[2 * i] >> shift);
      this.starts[cell[i] + 1]++;
    }
    for (let i = 1; i < this.starts.length; i++) this.starts[i] += this.starts[i - 1];
    const next = this.starts.slice(0, -1);
    this.order = new Uint32Array(num);
    for (let i = 0; i < num; i++) this.order[next[cell[i]]++] = i;
  }

  /** [first, stop] of `order` for each row of cells that a rectangle of places from 0 to 1 touches. */
  rows(left, bottom, right, top) {
    const { BITS } = Cells;
    const last = (1 << BITS) - 1;
    const cellOf = (value) => Math.max(0, Math.min(last, Math.floor(value * (last + 1))));
    const found = [];
    for (let row = cellOf(bottom); row <= cellOf(top); row++) {
      found.push([this.starts[(row << BITS) | cellOf(left)], this.starts[((row << BITS) | cellOf(right)) + 1]]);
    }
    return found;
  }

  /** About how many points are in a rectangle: those in the cells that it touches. */
  count(...rectangle) {
    return this.rows(...rectangle).reduce((sum, [first, stop]) => sum + stop - first, 0);
  }

  /** Calls visit(i, x, y) for each point in a rectangle of places from 0 to 1. */
  within(left, bottom, right, top, visit) {
    const [x1, x2, y1, y2] = [left, right, bottom, top].map((value) => value * 65535);
    for (const [first, stop] of this.rows(left, bottom, right, top)) {
      for (let at = first; at < stop; at++) {
        const i = this.order[at];
        const x = this.places[2 * i];
        const y = this.places[2 * i + 1];
        if (x >= x1 && x <= x2 && y >= y1 && y <= y2) visit(i, x / 65535, y / 65535);
      }
    }
  }

  /** The point that is nearest to a place, within an ellipse of two half axes, or -1. passes(i): whether it counts. */
  nearest(x, y, across, up, passes = () => true) {
    let best = -1;
    let least = 1;
    this.within(x - across, y - up, x + across, y + up, (i, px, py) => {
      const square = ((px - x) / across) ** 2 + ((py - y) / up) ** 2;
      if (square < least && passes(i)) (least = square), (best = i);
    });
    return best;
  }
}

/** Draws points on a canvas. Throws if there is no WebGL2. */
export class Points {
  constructor(canvas) {
    this.canvas = canvas;
    const gl = canvas.getContext("webgl2", { alpha: true, antialias: false, depth: false, premultipliedAlpha: true });
    if (!gl) throw new Error("this browser has no WebGL2");
    this.gl = gl;
    this.places = this.strengths = this.lit = null;
    canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    canvas.addEventListener("webglcontextrestored", () => (this.begin(), this.onRestored?.()));
    this.begin();
  }

  begin() {
    const { gl } = this;
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.bindAttribLocation(program, 0, "place");
    gl.bindAttribLocation(program, 1, "strength");
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) throw new Error(`WebGL2: ${gl.getProgramInfoLog(program)}`);
    gl.useProgram(program);
    this.uniforms = Object.fromEntries(
      ["scale", "centre", "size", "lit", "colour", "edge", "halo"].map((name) => [name, gl.getUniformLocation(program, name)]),
    );
    this.buffers = { places: gl.createBuffer(), strengths: gl.createBuffer(), lit: gl.createBuffer() };
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    if (this.places) this.setPlaces(this.places);
    if (this.strengths) this.setStrengths(this.strengths);
    if (this.lit) this.setLit(this.lit);
  }

  /** places: (2n) uint16. */
  setPlaces(places) {
    const { gl } = this;
    this.places = places;
    gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers.places);
    gl.bufferData(gl.ARRAY_BUFFER, places, gl.STATIC_DRAW);
    gl.enableVertexAttribArray(0);
    gl.vertexAttribPointer(0, 2, gl.UNSIGNED_SHORT, true, 0, 0);
  }

  /** strengths: (n) uint8, how much each is to be seen. */
  setStrengths(strengths) {
    const { gl } = this;
    this.strengths = strengths;
    gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers.strengths);
    gl.bufferData(gl.ARRAY_BUFFER, strengths, gl.DYNAMIC_DRAW);
    gl.enableVertexAttribArray(1);
    gl.vertexAttribPointer(1, 1, gl.UNSIGNED_BYTE, true, 0, 0);
  }

  /** lit: numbers of points that are drawn again, on top; the last one topmost. */
  setLit(lit) {
    const { gl } = this;
    this.lit = Uint32Array.from(lit);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, this.buffers.lit);
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, this.lit, gl.DYNAMIC_DRAW);
  }

  /** view: centre [x, y] and scale [x, y] of the clip space; size in px of the screen; colours [r, g, b, a] from 0 to 1. */
  draw({ centre, scale, size, plain, bright, ring }) {
    const { gl, uniforms, canvas } = this;
    if (!this.places || !this.strengths || gl.isContextLost()) return;
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.uniform2f(uniforms.centre, ...centre);
    gl.uniform2f(uniforms.scale, ...scale);
    const pass = (colour, width, lit, halo) => {
      gl.uniform4f(uniforms.colour, ...colour);
      gl.uniform1f(uniforms.size, width);
      gl.uniform1f(uniforms.lit, lit);
      gl.uniform1f(uniforms.halo, halo);
      gl.uniform1f(uniforms.edge, Math.min(1, 3 / width));
      if (lit) gl.drawElements(gl.POINTS, this.lit.length, gl.UNSIGNED_INT, 0);
      else gl.drawArrays(gl.POINTS, 0, this.places.length / 2);
    };
    pass(plain, size, 0, 0);
    if (!this.lit?.length) return;
    pass([...bright.slice(0, 3), 0.35], 5 * size + 6, 1, 1);
    pass(ring, size + 4, 1, 0);
    pass(bright, size + 2, 1, 0);
  }

  close() {
    this.gl.getExtension("WEBGL_lose_context")?.loseContext();
  }
}
