"""How fast the search page is, in a real browser, beside a page that is nothing but <img> tags of the same pictures.

    python scripts/bench_page.py                     # makes a store of 100,000 pictures once, in --folder
    python scripts/bench_page.py --num 10000 --repeats 3

Needs Chromium (apt-get install chromium) and playwright. Prints, as medians over repeats:
- first useful paint: from the request until the first row of pictures is decoded, with a query in the address, the server being warm;
- key to grid: from a key in the line until all pictures of the new answer that are on the screen are loaded, for queries not asked before;
- map: from the request until all points are drawn, and the frames of four seconds of zooming and moving, drawn in software;
- scroll: the share of frames later than 25 ms, and the longest, while 3,000 pictures pass in 4 s.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import statistics
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from multimodal.search.segments import Segment
from multimodal.search.store import Store
from multimodal.search.writing import StoreWriter, create_store
from multimodal.text import Normaliser, Vocabulary
from multimodal.text.words import WordSpace

WORDS = ("beach", "sunset", "woman", "man", "dog", "snow", "red", "car", "tree", "city", "night", "water", "bird", "horse", "ball", "hat")
DIM = 256
SEGMENT = 10_000
NUM_THUMBNAILS = 2_000
SIZES = ((224, 149), (149, 224), (224, 168), (224, 224))
SHOWN = """() => {
  const tiles = [...document.querySelectorAll('.tile img')].filter((one) => {
    const box = one.getBoundingClientRect();
    return box.top < innerHeight && box.bottom > 0;
  });
  return tiles.length > 3 && tiles.every((one) => one.complete && one.naturalWidth > 0);
}"""
FRAMES = """(pixels) => new Promise((resolve) => {
  const times = [];
  const start = performance.now();
  let last = start;
  const step = (now) => {
    times.push(now - last);
    last = now;
    scrollTo(0, (pixels * (now - start)) / 4000);
    now - start < 4000 ? requestAnimationFrame(step) : resolve(times.slice(1));
  };
  requestAnimationFrame(step);
})"""
MOVED = """() => new Promise((resolve) => {
  const canvas = document.querySelector('.map-canvas');
  const { left, top, width, height } = canvas.getBoundingClientRect();
  const times = [];
  const start = performance.now();
  let last = start;
  const step = (now) => {
    times.push(now - last);
    last = now;
    const turn = (now - start) / 300;
    const at = { clientX: left + width * (0.5 + 0.2 * Math.sin(turn)), clientY: top + height * 0.5, bubbles: true, cancelable: true };
    canvas.dispatchEvent(new WheelEvent('wheel', { ...at, deltaY: now - start < 2000 ? -12 : 12 }));
    now - start < 4000 ? requestAnimationFrame(step) : resolve(times.slice(1));
  };
  requestAnimationFrame(step);
})"""
TYPED = """(text) => new Promise((resolve) => {
  const isShown = SHOWN;
  const input = document.getElementById('q');
  const start = performance.now();
  const look = () => {
    if (document.querySelector('.sheet')?.dataset.query === text && isShown()) resolve(performance.now() - start);
    else requestAnimationFrame(look);
  };
  input.value = text;
  input.dispatchEvent(new Event('input', { bubbles: true }));
  requestAnimationFrame(look);
})""".replace("SHOWN", SHOWN)


def make_store(path: Path, num: int) -> None:
    """Pictures of noise in colours, each of some words; made once."""
    random = np.random.default_rng(0)
    vectors = random.standard_normal((len(WORDS), DIM)).astype(np.float32)
    WordSpace(Normaliser(), Vocabulary(WORDS, np.arange(1, len(WORDS) + 1), 99), vectors).save(path.parent / "space")
    create_store(path, path.parent / "space", family="wordvec", export="e" * 64)
    thumbnails, sizes = [], []
    for number in range(NUM_THUMBNAILS):
        size = SIZES[number % len(SIZES)]
        small = Image.fromarray(random.integers(0, 255, (6, 6, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
        file = io.BytesIO()
        small.save(file, "jpeg", quality=80)
        thumbnails.append(file.getvalue())
        sizes.append(size)
    with StoreWriter(path) as writer:
        for start in range(0, num, SEGMENT):
            ids = np.arange(start, min(start + SEGMENT, num))
            chosen = random.integers(0, len(WORDS), (len(ids), 3))
            rows = vectors[chosen].sum(axis=1) + 4 * random.standard_normal((len(ids), DIM)).astype(np.float32)
            metadata = {
                "name": [f"{id}.jpg" for id in ids],
                "text": [" ".join(WORDS[word] for word in words) for words in chosen],
                "width": [sizes[id % NUM_THUMBNAILS][0] for id in ids],
                "height": [sizes[id % NUM_THUMBNAILS][1] for id in ids],
            }
            writer.append(Segment(ids, rows, metadata, [thumbnails[id % NUM_THUMBNAILS] for id in ids]))
        writer.calibrate()


class Plain(BaseHTTPRequestHandler):
    """A page of <img> tags, and the pictures, from memory."""

    ids: list[int]
    pictures: dict[int, bytes]

    def do_GET(self) -> None:
        if self.path == "/":
            tags = "".join(f'<img src="/{id}" height="190" loading="lazy" style="margin:3px">' for id in self.ids)
            body, kind = f"<!doctype html><title>plain</title>{tags}".encode(), "text/html"
        else:
            body, kind = self.pictures.get(int(self.path[1:].split("?")[0] or -1), b"") if self.path[1:].isdigit() else b"", "image/jpeg"
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def first_paint(page: Page, address: str, ready: str) -> float:
    """Milliseconds from the request to the first screen of pictures."""
    page.goto("about:blank")
    page.goto(address, wait_until="commit")
    page.wait_for_function(ready, polling="raf")
    return page.evaluate("performance.now()")


def mapped(page: Page, address: str) -> tuple[float, float]:
    """Milliseconds until the map is drawn, and of the median frame while it moves."""
    first_paint(page, address, "() => performance.getEntriesByName('map-drawn').length > 0")
    drawn = page.evaluate("performance.getEntriesByName('map-drawn')[0].startTime")
    return drawn, statistics.median(page.evaluate(MOVED))


def scrolled(page: Page, height: float) -> tuple[float, float]:
    times = page.evaluate(FRAMES, height)
    return 100 * sum(time > 25 for time in times) / len(times), max(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--num", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("runs/bench_page"))
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    given = parser.parse_args()
    path = given.folder / f"store{given.num}"
    if not (path / "manifest.json").exists():
        make_store(path, given.num)
    with (
        subprocess.Popen(
            [sys.executable, "-m", "multimodal.cli", "serve", "--store", str(path), "--port", "0"], stderr=subprocess.PIPE, text=True
        ) as server,
        sync_playwright() as playwright,
    ):
        try:
            assert server.stderr is not None
            address = server.stderr.readline().split()[0]
            threading.Thread(target=server.stderr.read, daemon=True).start()
            pages = []
            for arguments in ([], ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]):  # WebGL in software slows all else down
                browser = playwright.chromium.launch(executable_path=given.chromium, args=arguments)
                pages.append(browser.new_page(viewport={"width": 1440, "height": 900}))
            print(json.dumps(measured(*pages, address, path, given.repeats), indent=1))
        finally:
            server.terminate()


def measured(page: Page, drawing: Page, address: str, path: Path, repeats: int) -> dict[str, float]:
    """drawing: of a browser that draws WebGL in software."""
    query = f"{address}?q={quote('dog + snow')}"
    first_paint(page, query, SHOWN)
    paints = [first_paint(page, query, SHOWN) for _ in range(repeats)]
    keys = []
    pairs = itertools.combinations(WORDS[::-1], 2)
    for first, second in itertools.islice(pairs, 5 * repeats):
        for text in (f"{first} + {second}", f"{first} + {second} + red"):
            keys.append(page.evaluate(TYPED, text))
            page.wait_for_timeout(300)  # the rest of the sheet comes meanwhile
    first_paint(page, query, SHOWN)
    ours = [scrolled(page, 100_000) for _ in range(repeats)]
    mapped(drawing, f"{address}?view=map")
    maps = [mapped(drawing, f"{address}?view=map") for _ in range(repeats)]
    store = Store(path)
    hits = store.search("dog + snow", k=3000)
    Plain.ids = [hit.id for hit in hits]
    Plain.pictures = dict(zip(Plain.ids, store.thumbnails(Plain.ids), strict=True))  # type: ignore[arg-type]
    server = ThreadingHTTPServer(("127.0.0.1", 0), Plain)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    plain = f"http://127.0.0.1:{server.server_address[1]}/"
    ready = SHOWN.replace(".tile img", "img")
    plains = [first_paint(page, plain, ready) for _ in range(repeats)]
    theirs = [scrolled(page, 100_000) for _ in range(repeats)]
    server.shutdown()
    middle = statistics.median
    return {
        "first useful paint, ms": round(middle(paints)),
        "first useful paint of plain <img> tags, ms": round(middle(plains)),
        "key to grid, ms, median": round(middle(keys)),
        "key to grid, ms, 95 %": round(float(np.percentile(keys, 95))),
        "map of all pictures, ms": round(middle(drawn for drawn, _ in maps)),
        "a frame of the moving map, ms, median": round(middle(frame for _, frame in maps), 1),
        "late frames while scrolling, %": round(middle(late for late, _ in ours), 1),
        "late frames of plain <img> tags, %": round(middle(late for late, _ in theirs), 1),
        "longest frame, ms": round(middle(longest for _, longest in ours)),
        "longest frame of plain <img> tags, ms": round(middle(longest for _, longest in theirs)),
    }


if __name__ == "__main__":
    main()
