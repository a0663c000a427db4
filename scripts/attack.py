"""Attack the product with damaged and hostile input, and count the outcomes. Only an answer or an error message is correct.

    .venv/bin/python scripts/attack.py --out /tmp/attack                    # all attacks, some minutes on two cores
    .venv/bin/python scripts/attack.py --out /tmp/attack --only boxes --trials 200 --seed 7

- boxes: copies of a shard set, text spaces, columns, an export, stores and a run, each with one damaged file (bytes changed, zeroed, cut or
  added; a JSON value of another type; swapped with another file; deleted), opened and read as the commands do, and verified.
- requests: random requests to a running `multimodal serve`, well-formed and malformed.
- queries: random queries to a store, with random filters, orders and cut-offs, in process.
- tars: malformed tars, indexed and read.

Each trial runs in its own process, forked from one that has imported what it needs, so that signals and hangs are detected. The outcomes
are: same (as without damage); message (an InputError or OSError, which commands print as one line); unchecked (different content without a
message, but `multimodal verify` finds it); and the faults: other (different content that is not found), traceback, signal, hang, and 5xx.
Inputs that cause a fault are kept in OUT/faults; the exit status is then 1.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

HANG_S = 5
"""The most processor time of a trial; not wall time, so that a busy machine causes no fault."""
LARGE_S = 60
"""The same, for trials that run torch."""
SLOW = ("export", "run")
FAULTS = ("other", "traceback", "signal", "hang", "5xx")
BIN = Path(sys.executable).parent
TRUNK = "--trunk.architecture test_efficientnet --trunk.weights multimodal.towers.NoWeights --trunk.size 48 --device cpu"
RECIPE = """
num_threads: 1
model:
  image_tower: {class_path: multimodal.towers.Head, init_args: {dim_in: 256, dim_out: 8, standardise: true}}
  target_side: {class_path: torch.nn.Identity}
  objective: {class_path: multimodal.objectives.Cosine}
  optimiser: {lr: 1.0e-2, warmup_steps: 2}
data:
  image: {class_path: multimodal.data.ColumnRows, init_args: {name: trunk}}
  target: {class_path: multimodal.data.ColumnRows, init_args: {name: words}}
  batch_size: 8
  validation_share: 0.2
trainer: {accelerator: cpu, max_epochs: 1, log_every_n_steps: 1}
"""
ROAD = [
    "data-prep make-shards folder photos --output set --pairs-per-shard 20",
    "data-prep fit-text-space word2vec --shards set --output space --dim 8 --min-count 1 --passes 20",
    "data-prep fit-text-space topics --shards set --output topics --num-topics 3 --min-count 1",
    "data-prep make-columns --space space --shards set --name words --unit text",
    f"multimodal embed --shards set --name trunk {TRUNK}",
    "multimodal fit --config recipe.yaml --data.shards set --run run",
    "multimodal export --run run --space space --output export",
    "multimodal index --export export --shards set --output store --column trunk --device cpu",
]
COLOURS = {"red": (220, 30, 30), "green": (30, 170, 60), "blue": (40, 60, 220), "yellow": (240, 210, 30), "black": (20, 20, 20)}


@dataclass(frozen=True, slots=True)
class Ended:
    """The outcome of a trial, and its message."""

    how: str
    detail: str = ""


# -- what is attacked ----------------------------------------------------------------------------------------------------------------------


def make_boxes(folder: Path) -> None:
    """The road from drawings to a store, by the real commands; existing boxes are kept."""
    if (folder / "store" / "manifest.json").is_file():
        return
    photos = folder / "photos"
    photos.mkdir(parents=True, exist_ok=True)
    for number in range(45):
        colour, shape = list(COLOURS)[number % 5], ("circle", "square", "bar")[number // 5 % 3]
        drawing = Image.new("RGB", (48, 48), "white")
        box = [6 + number % 3 * 4, 8, 34 + number % 3 * 4, 40 if shape != "bar" else 20]
        pencil = ImageDraw.Draw(drawing)
        (pencil.ellipse if shape == "circle" else pencil.rectangle)(box, fill=COLOURS[colour])
        drawing.save(photos / f"{number:02}.png")
        (photos / f"{number:02}.txt").write_text(f"a {colour} {shape} on paper")
    (folder / "recipe.yaml").write_text(RECIPE)
    for command in ROAD:
        program, *arguments = command.split()
        print(f"$ {command}", flush=True)
        subprocess.run([BIN / program, *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def open_shards(box: Path) -> bytes:
    """Digest of everything that can be read from a set and its columns."""
    from multimodal.shards import Column, ShardSet

    shards = ShardSet(box)
    digest = sha256()
    for id in range(len(shards)):
        pair = shards.pair(id)
        digest.update(repr((pair.name, pair.texts, pair.group, pair.split, shards.key(id))).encode() + pair.image)
    for name in ("words", "trunk"):
        column = Column.of(shards, name)
        digest.update(np.concatenate([column.rows(id) for id in range(len(column))]).tobytes() + repr(column.top_words()).encode())
    return digest.digest()


def open_text_space(box: Path) -> bytes:
    """Digest of vectors and unknown words of a few texts."""
    from multimodal.text import open_space

    space = open_space(box)
    texts = ["a red circle", "blue", "zzz", "", "grene squares on paper"]
    return sha256(space.embed(texts).tobytes() + repr([space.unknown_words(text) for text in texts]).encode()).digest()


def open_store(box: Path) -> bytes:
    """Digest of the output of searches, with thumbnails."""
    from multimodal.search.query import answer, as_json
    from multimodal.search.store import Store

    store = Store(box)
    answers = [as_json(query, answer(store, query, k=9)) for query in ("red + circle", "image:3 - blue", "square")]
    pictures = [picture or b"" for picture in store.thumbnails(store.ids)]
    return sha256("".join(answers).encode() + b"".join(pictures)).digest()


def open_export(box: Path) -> bytes:
    """Digest of the vectors of pictures and a text."""
    from multimodal.export.model import load_export

    export = load_export(box)
    drawn = np.random.default_rng(0).integers(0, 255, (2, 3, export.preprocessing.size, export.preprocessing.size), np.uint8)
    return sha256(
        export.embed_images(drawn).tobytes() + export.query.embed(["red circle"]).tobytes() + export.card.summary().encode()
    ).digest()


def open_run(box: Path) -> bytes:
    """Digest of the export of a run, which is written to a temporary folder."""
    from multimodal.export.model import export

    made = export(box, box.parent / "made", space=Path("space"))
    return sha256((made / "weights.safetensors").read_bytes()).digest()


BOXES: dict[str, Callable[[Path], bytes]] = {
    "set": open_shards,
    "space": open_text_space,
    "topics": open_text_space,
    "store": open_store,
    "export": open_export,
    "run": open_run,
}


# -- damage --------------------------------------------------------------------------------------------------------------------------------


def damage(box: Path, random_: random.Random) -> str:
    """Damage one file of a box; returns a description."""
    files = sorted(path for path in box.rglob("*") if path.is_file() and not path.name.startswith("."))
    # small files describe the large ones, so they get nearly as many trials as all others
    named = [path for path in files if path.suffix in (".json", ".yaml")]
    path = random_.choice(named if named and random_.random() < 0.4 else files)
    ways = [_change_bytes, _zero_bytes, _cut, _add, _delete, _swap] + 6 * ([_change_json] if path.suffix == ".json" else [])
    way = random_.choice(ways)
    return f"{path.relative_to(box)}: {way(path, random_, files)}"


def _change_bytes(path: Path, random_: random.Random, _: list[Path]) -> str:
    content = bytearray(path.read_bytes() or b"\0")
    places = [random_.randrange(len(content)) for _ in range(random_.choice((1, 1, 1, 8, 64)))]
    for place in places:
        content[place] ^= 1 << random_.randrange(8) if random_.random() < 0.5 else random_.randrange(1, 256)
    path.write_bytes(content)
    return f"bytes changed at {places[:3]}"


def _zero_bytes(path: Path, random_: random.Random, _: list[Path]) -> str:
    content = bytearray(path.read_bytes() or b"\0")
    start = random_.randrange(len(content))
    stop = min(len(content), start + random_.choice((1, 4, 64, 4096)))
    content[start:stop] = bytes(stop - start)
    path.write_bytes(content)
    return f"zeros from {start} to {stop}"


def _cut(path: Path, random_: random.Random, _: list[Path]) -> str:
    content = path.read_bytes()
    stop = random_.randrange(len(content) + 1)
    path.write_bytes(content[:stop])
    return f"cut at {stop}"


def _add(path: Path, random_: random.Random, _: list[Path]) -> str:
    path.write_bytes(path.read_bytes() + random_.randbytes(random_.choice((1, 100, 5000))))
    return "bytes added"


def _delete(path: Path, random_: random.Random, _: list[Path]) -> str:
    path.unlink()
    return "gone"


def _swap(path: Path, random_: random.Random, files: list[Path]) -> str:
    other = random_.choice(files)
    path.write_bytes(other.read_bytes())
    return f"has the content of {other.name}"


VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    10**6,
    10**30,
    -0.5,
    1e308,
    "",
    "x",
    "../../x",
    "/etc/passwd",
    "a\0b",
    "\ud800",
    [],
    {},
    [[]],
    {"a": 1},
]


def _change_json(path: Path, random_: random.Random, _: list[Path]) -> str:
    """Replace a value somewhere in it, delete it, or nest deeply."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return "is not JSON"
    places = list(_places(document))
    if not places:
        return "has no values"
    holder, key, where = random_.choice(places)
    if random_.random() < 0.15:
        del holder[key]
        change = "gone"
    elif random_.random() < 0.05:
        path.write_text(path.read_text(encoding="utf-8").rstrip().removesuffix("}") + ',"deep":' + "[" * 100_000)
        return "100,000 brackets"
    else:
        holder[key] = random_.choice(VALUES)
        change = repr(holder[key])
    path.write_text(json.dumps(document), encoding="utf-8")
    return f"{where} is {change}"


def _places(value: Any, where: str = "") -> Iterator[tuple[Any, Any, str]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inside:
        yield value, key, f"{where}.{key}"
        yield from _places(one, f"{where}.{key}")


# -- trials --------------------------------------------------------------------------------------------------------------------------------


def in_child(task: Callable[[], bytes | None], limit_s: float = HANG_S) -> tuple[Ended, bytes]:
    """Run a task in a forked process; returns its outcome and its result."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receive)
        signal.setitimer(signal.ITIMER_PROF, limit_s)  # SIGPROF ends it after that much processor time
        os._exit(_report(task, send))
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        watch = threading.Timer(20 * limit_s, os.kill, (child, signal.SIGKILL))  # a sleeping process uses no processor time
        watch.start()
        content = pipe.read()
    _, status = os.waitpid(child, 0)
    watch.cancel()
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        hung = number in (signal.SIGPROF, signal.SIGKILL)
        return Ended("hang" if hung else "signal", signal.Signals(number).name), b""
    kind, _, rest = content.partition(b"\n")
    return Ended(kind.decode(), "" if kind == b"done" else rest.decode(errors="replace")), rest


def _report(task: Callable[[], bytes | None], send: int) -> int:
    from multimodal.errors import InputError

    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            said = b"done\n" + (task() or b"")
    except (InputError, OSError) as error:
        said = f"message\n{error}".encode(errors="replace")
    except BaseException:
        said = b"traceback\n" + traceback.format_exc().encode(errors="replace")
    with os.fdopen(send, "wb") as pipe:
        pipe.write(said)
    return 0


def attack_boxes(folder: Path, faults: Path, trials: int, random_: random.Random) -> Counter[str]:
    """Damaged copies of every box."""
    from multimodal.verify import problems_of

    os.chdir(folder)
    work = folder / "work"
    before = {}
    for name, opened in BOXES.items():
        _fresh(folder / name, work)
        ended, before[name] = in_child(lambda name=name, opened=opened: opened(work / name), LARGE_S)
        assert ended.how == "done", f"{name} without damage: {ended}"
    counts: Counter[str] = Counter()
    drawn = [*BOXES] * 6
    drawn = [name for name in drawn if name not in SLOW] + [*SLOW]  # those that run torch are slow
    for trial in range(trials):
        name = drawn[trial % len(drawn)]
        _fresh(folder / name, work)
        change = damage(work / name, random_)
        ended, content = in_child(lambda name=name: BOXES[name](work / name), LARGE_S if name in SLOW else HANG_S)
        verified, problems = in_child(lambda name=name: "\n".join(map(str, problems_of(work / name))).encode())
        how = ended.how
        if how == "done":
            is_found = verified.how == "message" or bool(problems)
            how = "same" if content == before[name] else "unchecked" if is_found else "other"
        counts[how] += 1
        if verified.how in FAULTS:
            counts[f"verify {verified.how}"] += 1
        for label, one in ((how, ended), (verified.how, verified)):
            if label in FAULTS:
                _keep(faults, f"boxes-{trial:05}-{name}", change, Ended(label, one.detail), work / name)
        shutil.rmtree(work)
    return counts


def _fresh(box: Path, work: Path) -> bool:
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(box, work / box.name)
    return True


def _keep(faults: Path, name: str, what: str, ended: Ended, source: Path | None = None) -> None:
    """Keep the input of a fault, with the outcome. what: a description of the input."""
    folder = faults / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "what.txt").write_text(f"{what}\n{ended.how}\n{ended.detail}\n", errors="replace")
    if source is not None:
        shutil.copytree(source, folder / source.name, dirs_exist_ok=True)
    print(f"  {ended.how}: {what}: {ended.detail.strip().splitlines()[-1] if ended.detail.strip() else ''}", flush=True)


WORDS = [
    "red",
    "circle",
    "blue",
    "zzqx",
    "image:3",
    "image:99",
    "image:~nobody",
    "image:/etc/passwd",
    '"red circle"',
    "2*",
    "-",
    "+",
    "(",
    ")",
    "*",
]
LETTERS = "abc é–−*+-()\":“”\\'\t\n\0\ud800\u202e\x1b[31m漢字🙂0123456789.,;<>&%"


def random_query(random_: random.Random) -> str:
    """Words and signs in any order; sometimes arbitrary characters, very long or deeply nested."""
    kind = random_.random()
    if kind < 0.6:
        return " ".join(random_.choice(WORDS) for _ in range(random_.randrange(12)))
    if kind < 0.9:
        return "".join(random_.choice(LETTERS) for _ in range(random_.choice((0, 3, 20, 200))))
    if kind < 0.95:
        return random_.choice(("(", "-", "2*", "image:", "a" * 50 + " ", "q", "1")) * random_.choice((100, 990, 20_000))
    return "image:" + random_.choice(("9" * 5000, "x" * 300, "\0", "~", "~root", "\ud800", "-1", "1e5", ".", "/dev/zero", "\x1b[2J"))


WHERE_WORDS = [
    *("and", "or", "not", "in", "like", "between", "is", "missing", "(", ")", ",", "=", "!=", "<", ">=", "=="),
    *("name", "group", "text", "`set`", "nmae", '"red%"', "'%_%_%'", "2024-06", "7", "1e999999999", "9" * 400, "true", "``", "`"),
]
LIKES = ("%_" * 90, "%a" * 90, "_" * 199, "%" + "_" * 150 + "%", "%e_____%e____%", "\\" * 3, "[(*+?.^$|")
ORDERS = ("score", "name", "-group", "-", "nmae", "`set`", "\0", "-" * 500)


def random_where(random_: random.Random) -> str:
    """Tests that mean something, words and signs in any order, arbitrary characters, patterns that are slow elsewhere, deep nesting."""
    kind = random_.random()
    if kind < 0.3:
        test = f"{random_.choice(('name', 'text', 'group'))} {random_.choice(('=', '<', 'like', 'not like'))} {random_.choice(WHERE_WORDS)}"
        return random_.choice((" and ", " or not ")).join([test] * random_.randrange(1, 30))
    if kind < 0.7:
        return " ".join(random_.choice(WHERE_WORDS) for _ in range(random_.randrange(14)))
    if kind < 0.8:
        return f'name like "{random_.choice(LIKES)}"'
    if kind < 0.95:
        return "".join(random_.choice(LETTERS + "`=") for _ in range(random_.choice((1, 20, 200))))
    return random_.choice(("(", "not ", "name = a or ", "name in (" + "a," * 200, "`", '"')) * random_.choice((100, 990, 9000)) + "name = a"


def attack_queries(folder: Path, faults: Path, trials: int, random_: random.Random) -> Counter[str]:
    """Random queries, fifty per process; if a process ends in a fault, its queries are run again one by one."""
    from multimodal.errors import InputError
    from multimodal.search.query import answer, as_json
    from multimodal.search.store import Store

    store = Store(folder / "store")
    store.query_space.embed(["red"])
    store.engine.search(np.zeros((1, store.dim), np.float32), 1)
    counts: Counter[str] = Counter()

    def ask(queries: list[str]) -> bytes:
        outcomes = Counter()
        for query in queries:
            try:
                given = random.Random(query.encode(errors="surrogatepass"))
                extra = given.choice((None, "where", "where", "order", "cut_off"))
                query = query if extra is None or given.random() < 0.3 else given.choice(("red", "red + circle", "image:3 + blue"))
                where = random_where(given) if extra == "where" else None
                order = given.choice(ORDERS) if extra == "order" else "score"
                cut_off = given.choice((0.5, 0.01, 1.0, 0.0, float("nan"))) if extra == "cut_off" else None
                found = answer(store, query, k=5, where=where, order=order, cut_off=cut_off, fold=given.random() < 0.3)
                as_json(query, found).encode(errors="surrogateescape")
                outcomes["same"] += 1
            except InputError:
                outcomes["message"] += 1
        return json.dumps(outcomes).encode()

    for _ in range(0, trials, 50):
        queries = [random_query(random_) for _ in range(50)]
        ended, content = in_child(lambda queries=queries: ask(queries), 4 * HANG_S)
        if ended.how == "done":
            counts.update(json.loads(content))
            continue
        for query in queries:
            ended, content = in_child(lambda query=query: ask([query]))
            counts.update(json.loads(content) if ended.how == "done" else {ended.how: 1})
            if ended.how in FAULTS:
                _keep(faults, f"query-{sum(counts.values()):05}", repr(query)[:300], ended)
    return counts


def attack_requests(folder: Path, faults: Path, trials: int, random_: random.Random) -> Counter[str]:
    """Random requests to a server started by the real command, which must still answer afterwards."""
    command = [BIN / "multimodal", "serve", "--store", str(folder / "store"), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace") as server:
        assert server.stderr is not None
        port = int(server.stderr.readline().split(":")[2].split("/")[0])
        said: list[str] = []
        reader = threading.Thread(target=lambda: said.extend(server.stderr or ()), daemon=True)
        reader.start()
        try:
            counts = _requests(port, faults, trials, random_)
            counts.update(_half_open(port, faults))
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(30)
    reader.join(10)
    if any("Traceback" in line for line in said):
        counts["traceback"] += 1
        _keep(faults, "requests-server", "the server printed", Ended("traceback", "".join(said)))
    return counts


def _requests(port: int, faults: Path, trials: int, random_: random.Random) -> Counter[str]:
    counts: Counter[str] = Counter()
    for trial in range(trials):
        raw = _random_request(random_, port)
        began = time.monotonic()
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
                connection.sendall(raw)
                connection.shutdown(socket.SHUT_WR)
                answered = b""
                while more := connection.recv(65536):
                    answered += more
            status = int(answered.split(b" ", 2)[1]) if answered.startswith(b"HTTP/1") else 0
            how = "5xx" if status >= 500 else "same" if status in (200, 0) else "message"
        except (OSError, ValueError, IndexError) as error:
            how, answered = ("hang" if isinstance(error, TimeoutError) else "message"), str(error).encode()
        if time.monotonic() - began > 6 * HANG_S:
            how = "hang"
        counts[how] += 1
        if how in FAULTS:
            _keep(faults, f"request-{trial:05}", repr(raw[:300]), Ended(how, answered[:2000].decode(errors="replace")))
    return counts


def _random_request(random_: random.Random, port: int) -> bytes:
    from urllib.parse import quote

    if random_.random() < 0.1:
        return random_.randbytes(random_.choice((1, 30, 3000)))
    query = random_query(random_)[:3000]
    encoded = quote(query.encode(errors="surrogatepass"), safe="" if random_.random() < 0.9 else "%&=/?#")
    where = quote(random_where(random_)[:2000].encode(errors="surrogatepass"))
    given = random_.choice(
        ("", f"&where={where}", f"&where={where}", "&where=", "&order=-name", "&order=%00", "&cut_off=0.5", "&cut_off=1e999")
    )
    k = random_.choice(("", "&k=5", "&k=0", "&k=-1", "&k=1e9", "&k=9999999999999999999999", "&k=x", "&q=again"))
    id = random_.choice(("3", "-1", "9" * 400, "x", "%00", "..%2f..%2fmanifest.json", "３", "1_0", ""))
    path = random_.choice(
        (f"/?q={encoded}{given}", f"/api/search?q={encoded}{k}{given}", f"/thumbnails/{id}", "/", f"/{encoded}", "//", "/../../etc/passwd")
    )
    method = random_.choice(("GET",) * 8 + ("POST", "HEAD", "OPTIONS", "BREW"))
    host = random_.choice((f"127.0.0.1:{port}",) * 6 + (f"localhost:{port}", "evil.example", "", "[::1]", "a" * 300))
    headers = random_.choice(
        ("", "", "", "Content-Length: 10\r\n", "Transfer-Encoding: chunked\r\n", "Range: bytes=0-\r\n", "X: " + "y" * 70000 + "\r\n")
    )
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n".encode(errors="replace")


def _half_open(port: int, faults: Path, number: int = 320) -> Counter[str]:
    """Connections that send half a request and wait: other requests must still be served."""
    held = []
    try:
        for _ in range(number):
            connection = socket.create_connection(("127.0.0.1", port), timeout=10)
            connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
            held.append(connection)
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=10 * HANG_S)
        client.request("GET", "/api/search?q=red")
        status = client.getresponse().status
    except OSError as error:
        _keep(faults, "half-open", f"{number} half-open connections", Ended("hang", str(error)))
        return Counter({"hang": 1})
    finally:
        for connection in held:
            connection.close()
    return Counter({"same": 1} if status == 200 else {"5xx": 1})


def odd_tar(path: Path, random_: random.Random) -> str:
    """Write a malformed tar; returns a description."""
    picture = io.BytesIO()
    Image.new("RGB", (4, 3), "red").save(picture, "PNG")
    members = [
        (f"00{number}", extension, content) for number in range(3) for extension, content in (("png", picture.getvalue()), ("txt", b"red"))
    ]
    held = io.BytesIO()
    odd = random_.choice(("pax", "links", "names", "plain", "json"))
    with tarfile.open(fileobj=held, mode="w", format=tarfile.PAX_FORMAT if odd == "pax" else tarfile.GNU_FORMAT) as tar:
        for key, extension, content in members:
            name = f"{key}.{extension}"
            if odd == "names":
                name = random_.choice((f"../{name}", f"/{name}", f"a/{'b' * 200}/{name}", f"{name}\n", f"é{name}", f".{name}", key))
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if odd == "pax":
                info.pax_headers = {
                    random_.choice(("size", "path", "mtime", "GNU.sparse.map", "comment")): random_.choice(("-1", "x", "9" * 30, "", "0"))
                }
            if odd == "links" and random_.random() < 0.5:
                info.type = random_.choice(
                    (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, b"S", b"x", b"L")
                )
                info.linkname, info.size = "000.png", 0
            tar.addfile(info, io.BytesIO(content[: info.size]))
        if odd == "json":
            deep = random_.choice(
                (b"[" * 100_000, b'{"texts": ["\\ud800"]}', b'{"texts": [1]}', b'{"texts": "x"}', b"\xff", b'{"caption": NaN}', b"null")
            )
            info = tarfile.TarInfo("003.json")
            info.size = len(deep)
            tar.addfile(info, io.BytesIO(deep))
    content = bytearray(held.getvalue())
    what = odd
    if random_.random() < 0.7:  # the header of a member: its size in octal, in base 256, or not a number, with a correct checksum
        starts = [at for at in range(0, len(content) - 512, 512) if content[at + 257 : at + 262] == b"ustar"]
        at = random_.choice(starts)
        size = random_.choice(
            (b"77777777777\0", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"\xff" * 11 + b"\x01", b"zzzzzzzzzzz\0", b"\0" * 12, b"00000000001\0")
        )
        content[at + 124 : at + 136] = size
        content[at + 148 : at + 156] = b" " * 8
        content[at + 148 : at + 156] = b"%06o\0 " % sum(content[at : at + 512])
        what += f", size {size!r} at {at}"
    if random_.random() < 0.3:
        stop = random_.randrange(len(content))
        content = content[:stop]
        what += f", cut at {stop}"
    path.write_bytes(content)
    return what


def attack_tars(folder: Path, faults: Path, trials: int, random_: random.Random) -> Counter[str]:
    """Malformed tars, through `shards index` and the reader."""
    from multimodal.shards import ShardSet
    from multimodal.shards.index import index_tars
    from multimodal.shards.verify import find_problems

    def read(work: Path) -> bytes:
        index_tars(work, max_bad_share=1.0)
        shards = ShardSet(work)
        for id in range(len(shards)):
            shards.pair(id)
        list(find_problems(shards))
        return b""

    counts: Counter[str] = Counter()
    for trial in range(trials):
        work = folder / "work" / "tars"
        shutil.rmtree(folder / "work", ignore_errors=True)  # from a run that was stopped
        work.mkdir(parents=True)
        what = odd_tar(work / "000.tar", random_)
        ended, _ = in_child(lambda work=work: read(work))
        how = "same" if ended.how == "done" else ended.how
        counts[how] += 1
        if how in FAULTS:
            _keep(faults, f"tars-{trial:05}", what, ended, work)
        shutil.rmtree(folder / "work")
    return counts


ATTACKS = {
    "boxes": (attack_boxes, 1000),
    "requests": (attack_requests, 4000),
    "queries": (attack_queries, 10_000),
    "tars": (attack_tars, 200),
}
"""Name -> the attack, and its default number of trials."""


def main() -> int:
    """Run the attacks and print their counts; returns 1 if there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the attacked boxes and the faults")
    parser.add_argument("--only", nargs="+", choices=ATTACKS, default=list(ATTACKS), help="which attacks")
    parser.add_argument("--trials", type=int, help="number of trials of each attack, instead of its default")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    folder = (given.out / "boxes").resolve()
    make_boxes(folder)
    import multimodal.export.model  # noqa: F401  (torch, once, before the processes are forked)

    faults, num_faults = given.out.resolve() / "faults", 0
    print(f"{'':10}{'trials':>8}  outcomes")
    for name in given.only:
        attack, trials = ATTACKS[name]
        counts = attack(folder, faults, given.trials or trials, random.Random(f"{given.seed} {name}"))
        print(f"{name:10}{sum(counts.values()):>8}  {', '.join(f'{how} {number}' for how, number in counts.most_common())}", flush=True)
        num_faults += sum(number for how, number in counts.items() if how.split()[-1] in FAULTS)
    print(f"{num_faults} faults" + (f", kept in {faults}" if num_faults else ""))
    return int(num_faults > 0)


if __name__ == "__main__":
    sys.exit(main())
