"""Readers of others read our shards, and we read what others write."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest

from multimodal.pairs import Pair
from multimodal.shards import ShardSet, ShardWriter, open_set
from multimodal.shards.index import index_tars

wds = pytest.importorskip("webdataset", reason="compares with webdataset: install the extra `dev`")

GOLDEN = Path(__file__).resolve().parents[1] / "data" / "shards" / "golden"


def flickr_pairs(data: Path, num: int) -> Iterator[Pair]:
    captions: dict[str, list[str]] = {}
    for line in (data / "flickr8k" / "captions.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        file, _, caption = line.split("\t")
        captions.setdefault(file, []).append(caption)
    with tarfile.open(data / "flickr8k" / "train-00000.tar") as tar:
        for member in [member for _, member in zip(range(num), tar, strict=False)]:
            yield Pair(member.name, tar.extractfile(member).read(), "jpg", tuple(captions[member.name]), member.name, "train")


@pytest.fixture(scope="module", params=["golden", "flickr8k"])
def shards(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    if request.param == "golden":
        return ShardSet(GOLDEN)
    path = tmp_path_factory.mktemp("flickr8k")
    with ShardWriter(path, pairs_per_shard=40) as writer:
        for pair in flickr_pairs(request.getfixturevalue("shared_data"), 100):
            writer.write(pair)
    return ShardSet(path)


def urls(shards: ShardSet) -> list[str]:
    return [str(shards.path / f"{shard.name}.tar") for shard in shards.shards]


def test_webdataset_reads_every_pair_with_its_main_text(shards: ShardSet) -> None:
    read = list(wds.WebDataset(urls(shards), shardshuffle=False))
    assert [sample["__key__"] for sample in read] == shards.keys().tolist()
    for id, sample in enumerate(read):
        pair = shards.pair(id)
        assert sample["txt"].decode() == pair.texts[0]
        assert sample[pair.extension] == pair.image
        assert json.loads(sample["json"]) == shards.record(id)
        assert {name for name in sample if not name.startswith("__")} == {pair.extension, "txt", "json"}


def test_webdatasets_own_decoding_gives_texts_and_objects(shards: ShardSet) -> None:
    for id, sample in enumerate(wds.WebDataset(urls(shards), shardshuffle=False).decode()):
        assert sample["txt"] == shards.texts(id)[0]
        assert sample["json"]["texts"] == list(shards.texts(id))


def test_our_pipeline_gives_what_webdataset_gives_without_opening_anything_itself(shards: ShardSet, tmp_path: Path) -> None:
    theirs = [{**sample, "__url__": ""} for sample in wds.WebDataset(urls(shards), shardshuffle=False)]
    assert [{**sample, "__url__": ""} for sample in shards.webdataset()] == theirs
    texts = [text for text, _ in shards.webdataset().decode().to_tuple("txt", "json")]
    assert texts == [shards.texts(id)[0] for id in range(len(shards))]
    at_a_url = open_set(shards.path.as_uri(), tmp_path / "cache")
    assert [{**sample, "__url__": ""} for sample in at_a_url.webdataset()] == theirs


def test_workers_of_our_pipeline_share_the_tars(shards: ShardSet) -> None:
    torch = pytest.importorskip("torch", reason="workers are torch's: install the extra `train`")
    loader = torch.utils.data.DataLoader(shards.webdataset(seed=1).to_tuple("__key__"), batch_size=None, num_workers=2)
    assert sorted(key for (key,) in loader) == shards.keys().tolist()


def test_python_and_we_agree_on_where_members_lie(shards: ShardSet) -> None:
    for shard in shards.shards:
        with tarfile.open(shards.path / f"{shard.name}.tar") as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}
        for id in shard.ids:
            assert members[f"{shards.key(id)}.{shards.extensions[id]}"] == shards.image_bytes(id)
            assert members[f"{shards.key(id)}.txt"] == shards.text_bytes(id)


def test_a_tar_that_webdataset_wrote_is_read_by_us(shards: ShardSet, tmp_path: Path) -> None:
    with wds.TarWriter(str(tmp_path / "00000.tar")) as sink:
        for id in range(len(shards)):
            about = {"url": f"http://example.org/{id}", "width": 4, "caption": shards.texts(id)[0]}  # as img2dataset writes it
            sink.write({"__key__": f"{id:09d}", shards.extensions[id]: shards.image_bytes(id), "txt": shards.texts(id)[0], "json": about})
    index_tars(tmp_path)
    theirs = ShardSet(tmp_path)
    assert [theirs.texts(id) for id in range(len(theirs))] == [shards.texts(id)[:1] for id in range(len(shards))]
    assert [theirs.image_bytes(id) for id in range(len(theirs))] == [shards.image_bytes(id) for id in range(len(shards))]
    assert list(theirs.groups) == [f"http://example.org/{id}" for id in range(len(shards))]
    assert theirs.record(0)["metadata"]["width"] == 4


def test_open_clips_loader_with_its_defaults_reads_every_pair(shards: ShardSet) -> None:
    if int(version("webdataset").split(".")[0]) >= 1:
        pytest.skip(
            "open_clip 3.3's loader fails on webdataset 1 (KeyError: 'fname'); scripts/check_open_clip_reader.py compares it with 0.2.86"
        )
    data = pytest.importorskip("open_clip_train.data", reason="compares with open_clip: install the extra `dev`")
    Image = pytest.importorskip("PIL.Image", reason="decodes pictures: install the extra `prep`")
    torch = pytest.importorskip("torch", reason="open_clip's loader is torch's: install the extra `train`")

    def digest(content: bytes) -> torch.Tensor:
        return torch.tensor(list(hashlib.sha256(content).digest()), dtype=torch.uint8)

    arguments = SimpleNamespace(val_data=urls(shards), val_num_samples=None, batch_size=16, workers=0)
    info = data.get_wds_dataset(
        arguments, lambda image: digest(image.tobytes()), is_train=False, tokenizer=lambda text: [digest(text.encode())]
    )
    read = [(bytes(image), bytes(text)) for images, texts in info.dataloader for image, text in zip(images, texts, strict=True)]
    expected = []
    for pair in map(shards.pair, range(len(shards))):
        if pair.extension != "avif":  # not among the extensions that open_clip's loader asks for
            pixels = Image.open(io.BytesIO(pair.image)).convert("RGB").tobytes()
            expected.append((hashlib.sha256(pixels).digest(), hashlib.sha256(pair.texts[0].encode()).digest()))
    assert read == expected
