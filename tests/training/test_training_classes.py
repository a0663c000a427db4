"""Labels as a side: numbers over the classes of a run, bad rows with reasons, and classes that are held out for validation."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from multimodal.data import ColumnRows, Labels, PairLoader, Pixels, Shuffled
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards import JoinedShards, Ledger, ShardSet, ShardWriter, Split
from multimodal.training import PairData

PICTURE = io.BytesIO()
Image.new("RGB", (8, 8)).save(PICTURE, "PNG")


def write(folder: Path, labels: Sequence[object]) -> ShardSet:
    """Pairs without texts; None: a pair without a label."""
    with ShardWriter(folder, pairs_per_shard=7) as writer:
        for number, label in enumerate(labels):
            metadata = {} if label is None else {"label": label}
            writer.write(Pair(f"{number}.png", PICTURE.getvalue(), "png", (), f"{folder.name} {number}", metadata=metadata))
    return ShardSet(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty classes of five pictures, and two pictures without a class."""
    path = tmp_path_factory.mktemp("labels") / "set"
    write(path, [*(number % 20 for number in range(100)), None, 0.5])
    return path


def data_of(shards: Path | dict, target: Labels | Shuffled, **settings: object) -> PairData:
    data = PairData(shards, Pixels(8), target, Split(held_out=0.0), batch_size=10, **settings)  # type: ignore[arg-type]
    data.setup("fit")
    return data


def test_a_loader_of_its_own_numbers_the_classes_of_its_pairs(folder: Path) -> None:
    shards = ShardSet(folder)
    [batch] = PairLoader(shards, np.array([9, 10, 29, 3, 100]), Pixels(8), Labels(), 6, seed=0, shuffle=False)
    assert isinstance(batch.target, torch.Tensor) and batch.target.dtype == torch.int64
    assert batch.target[:4].tolist() == [1, 2, 1, 0] and batch.valid.tolist() == [True] * 4 + [False] * 2


def test_a_pair_without_a_class_is_a_bad_row_with_a_reason(folder: Path, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "bad.csv")
    list(PairLoader(ShardSet(folder), np.arange(96, 102), Pixels(8), Labels(), 3, seed=0, ledger=ledger))
    assert sorted((bad.key[-3:], bad.reason) for bad in ledger.entries) == [
        ("100", "has no label in its metadata, which has nothing"),
        ("101", "its label is 0.5; expected text or a whole number"),
    ]


def test_no_class_that_is_validated_on_is_trained_on_and_those_trained_on_come_first(folder: Path) -> None:
    data = data_of(folder, Labels(), validation_share=0.2)
    assert data.classes is not None
    trained = {int(data.classes.names.index(str(id % 20))) for id in data.train_ids.tolist() if id < 100}
    validated = {int(data.classes.names.index(str(id % 20))) for id in data.validation_ids.tolist()}
    assert trained == set(range(16)) and validated == set(range(16, 20)) and data.classes.num_trained == 16
    assert list(data.classes.names[:16]) == sorted(data.classes.names[:16], key=int)
    assert {100, 101} <= set(data.train_ids.tolist()), "pairs without a class cannot be left out unseen"
    for loader, ids in ((data.train_dataloader(), data.train_ids), (data.val_dataloader(), data.validation_ids)):
        seen = {}
        for batch in loader:
            assert isinstance(batch, tuple)
            seen |= dict(zip(batch.id[batch.valid].tolist(), batch.target[batch.valid].tolist(), strict=True))
        assert seen == {id: data.classes.names.index(str(id % 20)) for id in ids.tolist() if id < 100}


def test_the_classes_to_validate_on_can_be_named_or_be_those_that_are_trained_on(folder: Path) -> None:
    named = data_of(folder, Labels(validate_on=["8", "9"]))
    assert {id % 20 for id in named.validation_ids.tolist()} == {8, 9} and len(named.validation_ids) == 10
    seen = data_of(folder, Labels(seen=True), validation_share=0.3)
    assert seen.classes is not None and seen.classes.num_trained == 20 and 10 < len(seen.validation_ids) < 50
    without = data_of(folder, Labels(), validation_share=0)
    assert len(without.train_ids) == 102 and not len(without.validation_ids)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (lambda: Labels(validate_on=["8", "dog"]), "validate_on: no pair has the label dog. There are 0, 1, 2.* and 12 more"),
        (lambda: Labels(validate_on=[str(one) for one in range(19)]), "1 would be left to train on.*seen: true"),
        (lambda: Labels(seen=True, validate_on=["8"]), "seen: true validates on all classes"),
        (lambda: Labels(name="identity"), "identity has 0 values .none., of which 0 would be left"),
    ],
)
def test_classes_that_cannot_be_held_out_are_refused(folder: Path, labels: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        data_of(folder, labels())  # type: ignore[operator]


def test_the_same_classes_are_held_out_whatever_their_order(tmp_path: Path) -> None:
    chosen = []
    for name, order in (("one", range(60)), ("other", reversed(range(60)))):
        write(tmp_path / name, [number % 12 for number in order])
        data = data_of(tmp_path / name, Labels(), validation_share=0.25)
        assert data.classes is not None
        chosen.append(data.classes)
    assert chosen[0] == chosen[1] and len(chosen[0].names) - chosen[0].num_trained == 3


def test_classes_of_several_sets_are_numbered_together(tmp_path: Path) -> None:
    write(tmp_path / "one", [number % 6 for number in range(30)])
    write(tmp_path / "two", [number % 6 + 4 for number in range(30)])
    data = data_of({"a": tmp_path / "one", "b": tmp_path / "two"}, Labels(), validation_share=0.2)
    assert data.classes is not None and set(data.classes.names) == {str(number) for number in range(10)}
    joined = data.shards
    assert isinstance(joined, JoinedShards)
    for batch in data.train_dataloader():
        for id, number in zip(batch.id[batch.valid].tolist(), batch.target[batch.valid].tolist(), strict=True):
            of_set = id if id < 30 else id - 30
            assert data.classes.names[number] == str(of_set % 6 + (4 if id >= 30 else 0))
    validated = set(data.classes.names[data.classes.num_trained :])
    assert len(validated) == 2 and not validated & set(data.classes.names[: data.classes.num_trained])


def test_a_control_permutes_the_labels(folder: Path) -> None:
    def numbers(target: Labels | Shuffled) -> dict[int, int]:
        loader = data_of(folder, target).train_dataloader()
        return {
            id: number
            for batch in loader
            for id, number in zip(batch.id[batch.valid].tolist(), batch.target[batch.valid].tolist(), strict=True)
        }

    plain, permuted = numbers(Labels()), numbers(Shuffled(Labels()))
    same = [plain[id] == permuted[id] for id in plain.keys() & permuted.keys()]
    assert np.mean(same) < 0.3 and set(plain.values()) == set(permuted.values())


def test_pairs_that_a_preflight_inspects_are_several_of_a_class(folder: Path) -> None:
    batch, _ = data_of(folder, Labels()).some_pairs(16)
    assert isinstance(batch.target, torch.Tensor)
    _, counts = np.unique(batch.target[batch.valid].numpy(), return_counts=True)
    assert counts.tolist() == [4] * 4


def test_other_targets_have_no_classes(folder: Path) -> None:
    data = PairData(folder, Pixels(8), ColumnRows("nothing"), Split())
    data.setup("fit")
    assert data.classes is None
