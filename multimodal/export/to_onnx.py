"""The networks of an export as ONNX, which onnxruntime, and whoever else reads ONNX, runs without torch.

multimodal export --run R --output E --onnx          # or --output E --onnx, for an export that is there already

`E/onnx/image.onnx` has the whole network of pictures, from uint8 pixels to vectors: scaling by mean and deviation is in it, decoding and
resizing are not, because Pillow's filter rounds between its two passes, which no operator of ONNX does. If an encoder reads texts,
`E/query/onnx/text.onnx` has it, from tokens to vectors of unit length, beside its tokenizer. See `multimodal.onnx` for the boxes.
"""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from multimodal.boxes import (
    MANIFEST,
    Manifest,
    atomic_write,
    fingerprint_file,
    is_whole,
    write_manifest,
)
from multimodal.errors import InputError, needing
from multimodal.export.model import QUERY, Export, load_export
from multimodal.metrics import unit
from multimodal.onnx import FOLDER, KIND, OnnxNetwork, describe_networks
from multimodal.onnx.network import INT8
from multimodal.pictures.preprocessing import height_width
from multimodal.text import EncoderSpace, JoinedSpace, OpenClipSpace, ProjectedSpace, TextSpace
from multimodal.text.clip import may_be_shorter, shortened
from multimodal.text.clip_tokens import SPECIAL
from multimodal.text.encoder import TOKENIZER
from multimodal.text.joined import place_of
from multimodal.text.pooling import pool
from multimodal.text.projected import SPACE

OPSET = 20
"""The first with `Gelu`; onnxruntime has it since 1.17."""
TOLERANCE = 1e-4
"""The most that a coordinate of a vector of unit length may differ from torch's, in float32."""
MAX_BYTES = 2**31 - 1
"""Of a file of ONNX without others beside it: protobuf's own limit."""
IMAGE, TEXT = "image.onnx", "text.onnx"
TEXTS = (
    "a dog on the beach",
    "Zw\u00f6lf Boxk\u00e4mpfer: 34 + 5,678 = 5712! It's &amp; l'\u00e9t\u00e9",
    "\u4e24\u53ea\u72d7 \U0001f415",
    "snow",
    "the " * 600,
)
"""Letters, digits, signs, and more words than encoders read."""


@dataclass(frozen=True, slots=True)
class Graph:
    """What becomes a file of ONNX.

    name: of the file. network: from tensors by name to vectors (b, d). example: such tensors.
    dynamic: input -> axis -> its name, for the axes that may have any length. config: how pictures or texts go in, for the manifest.
    files: what belongs beside it, name -> content.
    """

    name: str
    network: nn.Module
    example: Mapping[str, Tensor]
    dynamic: Mapping[str, Mapping[int, str]]
    config: Mapping[str, Any]
    files: Mapping[str, bytes] = field(default_factory=dict)


def add_onnx(path: Path, int8: bool = False, trust: Sequence[str] = ()) -> Path:
    """Give an export its networks as ONNX, checked against torch. Those that are there, and were made from it, are kept.

    int8: the encoder of texts with weights of 8 bits, a quarter of the size.
    """
    with needing("train", "making ONNX"):
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    opened = load_export(path, trust=trust)
    encoders = dict(encoders_in(opened.query, path / QUERY))
    if int8 and not encoders:
        raise InputError(
            f"{path}: its texts are read by a {type(opened.query).__name__}, which has no network that could be int8. Leave --int8 out"
        )
    _make(
        path / FOLDER, {"export": opened.fingerprint}, "float32", lambda: image_graph(opened), lambda made: image_difference(opened, made)
    )
    for folder, space in encoders.items():
        _make(
            folder / FOLDER,
            {"text-space": space.fingerprint},
            INT8 if int8 else "float32",
            lambda space=space: text_graph(space),  # type: ignore[misc]
            lambda made, space=space: text_difference(space, made),  # type: ignore[misc]
        )
    print("\n".join(describe_networks(path)))
    return path


def encoders_in(space: TextSpace, folder: Path) -> Iterator[tuple[Path, EncoderSpace | OpenClipSpace]]:
    """The encoders that a space is, or contains, run by torch on the CPU, and their boxes. folder: the box of the space."""
    if isinstance(space, EncoderSpace | OpenClipSpace):
        yield folder, space.run_by(None, "cpu")
    elif isinstance(space, ProjectedSpace):
        yield from encoders_in(space.space, folder / SPACE)
    elif isinstance(space, JoinedSpace):
        for number, one in enumerate(space.spaces):
            yield from encoders_in(one, folder / place_of(number))


def image_graph(opened: Export) -> Graph:
    """The network of pictures: "image" (b, 3, h, w) uint8 -> (b, d), as `Export.embed_images`."""
    pictures = torch.zeros(2, 3, *height_width(opened.preprocessing.size), dtype=torch.uint8)
    config = {"preprocessing": opened.preprocessing.as_json()}
    return Graph(IMAGE, opened.network, {"image": pictures}, {"image": {0: "b"}}, config)


def text_graph(space: EncoderSpace | OpenClipSpace) -> Graph:
    """The encoder of texts, from tokens to what `embed` gives for them. space: on the CPU."""
    if isinstance(space, OpenClipSpace):
        context, is_shorter = space.tokenizer.context_length, may_be_shorter(space.model_cfg)
        length = min(8, context) if is_shorter else context
        axes = {0: "b", 1: "t"} if is_shorter else {0: "b"}
        example = {"text": torch.ones(2, length, dtype=torch.int64)}
        config = {"tokenizer": dict(space.tokenizer.settings), "max_tokens": context}
        return Graph(TEXT, _TextTower(space), example, {"text": axes}, config, {TOKENIZER: _tokenizer_of(space)})
    if space.usage.pooling == "eot":
        raise InputError(f"{space.folder}: the pooling eot checks each text for an end-of-text token, which a graph of ONNX cannot")
    ids = torch.ones(2, 8, dtype=torch.int64)
    mask = torch.tensor([[1] * 8, [1] * 5 + [0] * 3])
    names = ("input_ids", "attention_mask")
    config = {"prompt": space.usage.prompt, "max_tokens": space.max_tokens, "long_texts": space.long_texts}
    files = {TOKENIZER: (space.folder / TOKENIZER).read_bytes()}
    return Graph(TEXT, _Encoder(space), dict(zip(names, (ids, mask), strict=True)), dict.fromkeys(names, {0: "b", 1: "t"}), config, files)


class _Encoder(nn.Module):
    """Tokens -> the rows of an `EncoderSpace`; those of pieces of texts end below the projection."""

    def __init__(self, space: EncoderSpace) -> None:
        super().__init__()
        self.model, self.pooling = space.model, space.usage.pooling
        self.projection: nn.Linear | None = None
        if space.projection is not None and space.network_projects:
            dim_out, dim_in = space.projection.weight.shape
            self.projection = nn.Linear(dim_in, dim_out)
            tensors = {name: torch.tensor(np.asarray(getattr(space.projection, name))) for name in ("weight", "bias")}
            self.projection.load_state_dict(tensors)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """input_ids, attention_mask (b, t) int64, padded on the right. Returns (b, d)."""
        states = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        rows = normalize(pool(states, attention_mask, input_ids, self.pooling), dim=1)
        return rows if self.projection is None else normalize(self.projection(rows), dim=1)


class _TextTower(nn.Module):
    """Tokens -> the rows of an `OpenClipSpace`."""

    def __init__(self, space: OpenClipSpace) -> None:
        super().__init__()
        self.tower, self.may_be_shorter = space.tower, may_be_shorter(space.model_cfg)

    def forward(self, text: Tensor) -> Tensor:
        """text (b, t) int64, padded on the right; t is the whole context unless it may be shorter. Returns (b, d)."""
        tower = shortened(self.tower, text.shape[1]) if self.may_be_shorter else self.tower
        return normalize(tower(text).float(), dim=-1)


def _tokenizer_of(space: OpenClipSpace) -> bytes:
    """The tokenizer.json of a CLIP model; OpenAI's tokenizer, which has none, written as one."""
    if space.tokenizer.content is not None:
        return space.tokenizer.content.encode()
    from open_clip import SimpleTokenizer
    from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import BPE

    original = SimpleTokenizer()
    merges = sorted(original.bpe_ranks, key=original.bpe_ranks.__getitem__)
    tokenizer = Tokenizer(BPE(original.encoder, merges, end_of_word_suffix="</w>"))
    steps = [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    lowers = space.tokenizer.settings["clean"] != "whitespace"
    tokenizer.normalizer = normalizers.Sequence([*steps, *([normalizers.Lowercase()] if lowers else [])])
    words = Regex(r"(?i)'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    ends = [(token, original.encoder[token]) for token in SPECIAL]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{SPECIAL[0]} $A {SPECIAL[1]}", special_tokens=ends)
    tokenizer.enable_truncation(space.tokenizer.context_length)
    return (json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False) + "\n").encode()


def image_difference(opened: Export, network: OnnxNetwork) -> float:
    """The largest difference of a coordinate from torch's at unit length, on pictures of noise, of one colour, and of a gradient."""
    size = height_width(opened.preprocessing.size)
    noise = np.random.default_rng(0).integers(0, 256, (5, 3, *size), dtype=np.uint8)
    flat = np.full((2, 3, *size), np.array([[[[0]]], [[[200]]]]), np.uint8)
    gradient = np.broadcast_to(np.linspace(0, 255, size[1]).astype(np.uint8), (1, 3, *size))
    pictures = np.concatenate([noise, flat, gradient])
    made = np.concatenate([network.run(image=pictures[:5]), network.run(image=pictures[5:])])
    return float(np.abs(unit(opened.embed_images(pictures)) - unit(made)).max())


def text_difference(by_torch: EncoderSpace | OpenClipSpace, network: OnnxNetwork) -> float:
    """The largest difference of a coordinate from torch's, from texts on."""
    return float(np.abs(by_torch.embed(TEXTS) - by_torch.run_by(network).embed(TEXTS)).max())


def _make(
    folder: Path, made_from: Mapping[str, str], precision: str, graph: Callable[[], Graph], difference: Callable[[OnnxNetwork], float]
) -> None:
    """Write the box of one network, unless it is there. graph: what to write. difference: of the written one from torch's."""
    if is_there(folder, made_from, precision):
        return
    wanted = graph()
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch)
        (made / wanted.name).write_bytes(_as_onnx(wanted, folder))
        if precision == INT8:
            _quantise(made / wanted.name)
        for name, content in wanted.files.items():
            (made / name).write_bytes(content)
        with torch.inference_mode():
            dim = wanted.network(**wanted.example).shape[1]
        manifest = _manifest(
            made, {"graph": wanted.name, "precision": precision, "dim": dim, **wanted.config, "difference": 0.0}, made_from
        )
        write_manifest(made, manifest)
        found = difference(OnnxNetwork(made, made_from))
        if not found <= TOLERANCE and precision != INT8:
            raise InputError(
                f"{folder.parent}: onnxruntime's vectors differ from torch's by up to {found:.1e}, more than {TOLERANCE:.0e}. Nothing was "
                "written; use this export with torch"
            )
        (folder / MANIFEST).unlink(missing_ok=True)
        for name in manifest.parts:
            with open(made / name, "rb") as file, atomic_write(folder / name) as copied:
                copied.write(file.read())
        write_manifest(folder, _manifest(made, {**manifest.config, "difference": float(f"{found:.1e}")}, made_from))


def is_there(folder: Path, made_from: Mapping[str, str], precision: str) -> bool:
    """Whether the network is there, whole, and what is asked for; otherwise it is made anew, since all of it comes from the export."""
    if not is_whole(folder):
        return False
    try:
        return OnnxNetwork(folder, made_from).config["precision"] == precision
    except InputError:
        return False


def _manifest(folder: Path, config: Mapping[str, Any], made_from: Mapping[str, str]) -> Manifest:
    names = sorted(file.name for file in folder.iterdir() if file.name != MANIFEST)
    parts = {name: {"size_bytes": (folder / name).stat().st_size, "fingerprint": fingerprint_file(folder / name)} for name in names}
    return Manifest(KIND, config, made_from=made_from, parts=parts)


def _as_onnx(graph: Graph, folder: Path) -> bytes:
    """The file. Names of places in the code, which the exporter notes for each operator, are left out: they hold paths of this machine."""
    size_bytes = sum(tensor.numel() * tensor.element_size() for tensor in graph.network.state_dict().values())
    if size_bytes > MAX_BYTES:
        raise InputError(f"{folder.parent}: its weights have {size_bytes:,} bytes, and a file of ONNX holds {MAX_BYTES:,} at most")
    example = tuple(graph.example.values())
    try:
        with _quiet():
            program = torch.onnx.export(
                graph.network,
                example,
                dynamo=True,
                verbose=False,
                external_data=False,
                opset_version=OPSET,
                input_names=list(graph.example),
                output_names=["vector"],
                dynamic_shapes=tuple(dict(graph.dynamic[name]) for name in graph.example),
            )
    except torch.onnx.OnnxExporterError as error:
        raise InputError(f"{folder.parent}: torch cannot write {graph.name}: {_line(error)}. Use this export with torch") from None
    assert program is not None  # mypy: dynamo=True returns one
    model = program.model_proto
    del model.metadata_props[:], model.graph.metadata_props[:]
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    return model.SerializeToString(deterministic=True)


def _quantise(path: Path) -> None:
    """Weights of matrix products and of embeddings in 8 bits; activations are rounded while it runs (dynamic quantisation)."""
    with needing("search", "int8"):
        from onnxruntime.quantization import quantize_dynamic
    with _quiet():
        quantize_dynamic(path, path, per_channel=True, reduce_range=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without advice for authors of networks: what was made is compared with torch."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _line(error: Exception) -> str:
    cause = error.__cause__ or error
    return " ".join(str(cause).split())[:300]
