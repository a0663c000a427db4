"""What panels make of a run: which queries they take, whose words they show, and what they say where settings do not fit."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from multimodal.data import ColumnRows, Shuffled
from multimodal.errors import InputError
from multimodal.objectives import SoftCrossEntropy
from multimodal.pairs import Pair
from multimodal.shards import Column, ShardSet, ShardWriter, Split
from multimodal.towers import Head
from multimodal.training import HeldOut, PairData, PairModule
from multimodal.training.panels import Queries, Thumbnails, Tile, Topics, View, compose

MODULE = PairModule(Head(6, 4), nn.Identity(), SoftCrossEntropy())


def data_of(pairs: Path, seed: int = 0, control: bool = False) -> PairData:
    text = ColumnRows("topics")
    data = PairData(pairs, ColumnRows("features"), Shuffled(text) if control else text, Split(), validation_share=0.3, seed=seed)
    data.setup("fit")
    return data


def held_out(data: PairData) -> HeldOut:
    """Pictures at random, texts as the loader gives them."""
    text = np.concatenate([batch.target[batch.valid].numpy() for batch in data.val_dataloader()])
    return HeldOut(data.validation_ids, np.random.default_rng(0).random(text.shape, np.float32), text)


def view_of(panel: Queries | Topics, data: PairData, rows: HeldOut) -> View:
    show = panel.open(MODULE, data)
    assert show is not None
    return show(rows)


def test_queries_are_drawn_by_the_seed_among_the_pairs_that_are_validated_on(pairs: Path) -> None:
    ids = [
        [row[0] for row in view_of(Queries(6), data, held_out(data)).rows] for data in (data_of(pairs), data_of(pairs), data_of(pairs, 1))
    ]
    assert ids[0] == ids[1] != ids[2] and len(set(ids[0])) == 6
    assert set(ids[0]) <= set(data_of(pairs).validation_ids.tolist())


def test_more_queries_and_more_pictures_than_there_are_pairs_are_all_of_them(pairs: Path) -> None:
    data = data_of(pairs)
    view = view_of(Queries(10_000, k=1000, size_px=8), data, held_out(data))
    assert [row[0] for row in view.rows] == data.validation_ids.tolist()
    assert all(sorted(row[4]) == data.validation_ids.tolist() for row in view.rows)  # type: ignore[arg-type]
    assert len({shown.picture.size for shown in view.pictures}) == 1  # or W&B shows them wrongly


def test_a_pair_that_could_not_be_read_is_no_row(pairs: Path) -> None:
    data = data_of(pairs)
    first, second, *_ = data.validation_ids.tolist()
    rows = held_out(data)
    left = HeldOut(rows.ids[1:], rows.image[1:], rows.target[1:])
    assert [row[0] for row in view_of(Queries([second, first]), data, left).rows] == [second]


def test_a_control_shows_the_words_that_its_vectors_were_made_of(pairs: Path) -> None:
    data, shards, topics = data_of(pairs, control=True), ShardSet(pairs), Column.of(ShardSet(pairs), "topics")
    rows = held_out(data)
    of_text = {shards.texts(id)[0]: topics.take(np.array([id]))[0] for id in range(len(shards))}
    for id, query, *_ in view_of(Queries(8), data, rows).rows:
        assert query != shards.texts(id)[0]  # type: ignore[arg-type]
        assert np.array_equal(of_text[query], rows.target[rows.ids.tolist().index(id)])  # type: ignore[index]


def test_settings_that_do_not_fit_are_refused_with_what_would(pairs: Path) -> None:
    data = data_of(pairs)
    trained, validated = int(data.train_ids[0]), data.validation_ids[:3].tolist()
    with pytest.raises(InputError) as refused:
        Queries([validated[0], trained]).open(MODULE, data)
    assert str(refused.value).startswith(f"panel Queries: queries [{trained}] are not among the {len(data.validation_ids)} pairs")
    assert f"such as {validated}" in str(refused.value)
    with pytest.raises(InputError, match="panel Topics: k=0 must be at least 1"):
        Topics(k=0)


def test_a_column_of_topics_without_words_is_said_with_the_command_that_adds_them(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = Path(shutil.copytree(pairs, tmp_path / "set"))
    manifest = own / "columns" / "topics" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"config": {', '"config": {"family": "topic", '))
    assert Topics().open(MODULE, data_of(own)) is None
    assert f"Run: data-prep make-columns --space SPACE --shards {own} --name topics" in capsys.readouterr().err


def test_a_trained_text_side_has_no_topics(pairs: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(pairs, tmp_path / "set"))
    (own / "columns" / "topics" / "top_words.json").write_text('[["a"], ["b"], ["c"], ["d"]]')
    assert Topics().open(MODULE, data_of(own)) is not None
    assert Topics().open(PairModule(Head(6, 4), Head(4, 4), SoftCrossEntropy()), data_of(own)) is None


def test_a_picture_is_decoded_once_and_an_unreadable_one_is_grey(pairs: Path, tmp_path: Path) -> None:
    thumbnails = Thumbnails(ShardSet(pairs), size_px=4)
    assert thumbnails.of(1).size == (4, 4) and thumbnails.of(1) is thumbnails.of(1)
    with ShardWriter(tmp_path / "broken") as writer:
        writer.write(Pair("0.png", b"no picture", "png", ("a text",), group="0"))
    assert Thumbnails(ShardSet(tmp_path / "broken"), size_px=4).of(0).getcolors() == [(16, (211, 211, 211))]


def test_a_frame_marks_its_own_tile_alone(pairs: Path) -> None:
    thumbnail = Thumbnails(ShardSet(pairs), size_px=8).of(0)
    plain, framed = (np.asarray(compose([Tile(thumbnail), None, Tile(thumbnail, framed=on)], 8)) for on in (False, True))
    differs = (plain != framed).any(axis=(0, 2))
    assert differs[32:].any() and not differs[:32].any()
    assert np.array_equal(framed[4:12, 36:44], np.asarray(thumbnail))  # the frame leaves the thumbnail as it is
