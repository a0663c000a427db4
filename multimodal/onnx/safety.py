"""What an ONNX file may not ask for, since a box is data: files outside it, and loops that need not end.

check_graph(Path("export/onnx/image.onnx"))          # InputError if it does

ONNX can keep weights in other files, by any path, and can hold graphs in graphs (`If`, `Loop`, `Scan`). Exports have neither. Operators of
other libraries need no check here: onnxruntime refuses those that it does not have itself.
The file is read as protobuf's wire format (protobuf.dev/programming-guides/encoding), with the field numbers of onnx.proto; weights are
skipped.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from multimodal.boxes import reading
from multimodal.errors import InputError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_GRAPH, _TRAINING, _FUNCTIONS = 7, 20, 25  # of ModelProto
_NODE, _INITIALIZER, _SPARSE = 1, 5, 15  # of GraphProto
_OPERATOR, _ATTRIBUTE = 4, 5  # of NodeProto
_TENSOR, _SUBGRAPH, _TENSORS, _SUBGRAPHS, _SPARSE_TENSOR, _SPARSE_TENSORS = 5, 6, 10, 11, 22, 23  # of AttributeProto
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of TensorProto

Span = tuple[int, int]
"""Where a message begins and ends in the file."""


def check_graph(path: Path) -> None:
    """InputError if the file names others, or has control flow or functions; or is not a model of ONNX."""
    with reading(path), open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        num_graphs = 0
        for field, value in _fields(content, (0, len(content))):
            if field in (_TRAINING, _FUNCTIONS):
                raise _refused(path, "functions or a training graph")
            if field == _GRAPH and isinstance(value, tuple):
                num_graphs += 1
                _check(path, content, value)
        if num_graphs != 1:
            raise ValueError(f"it has {num_graphs} graphs, and a model of ONNX has one")


def _check(path: Path, content: mmap.mmap, graph: Span) -> None:
    for field, value in _fields(content, graph):
        if field == _SPARSE:
            raise _refused(path, "sparse tensors")
        if field == _INITIALIZER and isinstance(value, tuple):
            _check_tensor(path, content, value)
        if field == _NODE and isinstance(value, tuple):
            _check_node(path, content, value)


def _check_node(path: Path, content: mmap.mmap, node: Span) -> None:
    operator = "?"
    for field, value in _fields(content, node):
        if not isinstance(value, tuple):
            continue
        if field == _OPERATOR:
            operator = content[value[0] : value[1]].decode()
        for inner, given in _fields(content, value) if field == _ATTRIBUTE else ():
            if inner in (_SUBGRAPH, _SUBGRAPHS):
                raise _refused(path, f"a graph inside its operator {operator}")
            if inner in (_SPARSE_TENSOR, _SPARSE_TENSORS):
                raise _refused(path, "sparse tensors")
            if inner in (_TENSOR, _TENSORS) and isinstance(given, tuple):
                _check_tensor(path, content, given)


def _check_tensor(path: Path, content: mmap.mmap, tensor: Span) -> None:
    for field, value in _fields(content, tensor):
        if field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value):
            raise _refused(path, "weights in another file")


def _refused(path: Path, what: str) -> InputError:
    return InputError(f"{path}: has {what}, which no export has. Nothing was run; do not use this folder")


def _fields(content: mmap.mmap, span: Span) -> Iterator[tuple[int, int | Span]]:
    """The fields of a message: number, and the value of a varint or the place of its bytes. ValueError if it is not one."""
    at, stop = span
    while at < stop:
        tag, at = _varint(content, at, stop)
        field, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, at = _varint(content, at, stop)
            yield field, value
            continue
        if kind == _BYTES:
            length, at = _varint(content, at, stop)
        elif kind in (_FIXED32, _FIXED64):
            length = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"byte {at} is not protobuf's")
        if at + length > stop:
            raise ValueError(f"it ends before its field {field} does, at byte {at + length:,}")
        yield field, (at, at + length)
        at += length


def _varint(content: mmap.mmap, at: int, stop: int) -> tuple[int, int]:
    """The number at a place, and the place after it."""
    value = shift = 0
    while at < stop and shift < 64:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError(f"a number at byte {at:,} has no end")
