"""One way from a text to its words: defined for whatever a text holds, the same after a round trip through JSON."""

from __future__ import annotations

import json
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.errors import InputError
from multimodal.text import Normaliser
from multimodal.text.normalise import REDUCTIONS, VARIANTS

NORMALISERS = [Normaliser(variant=variant, reduce=reduce) for variant in VARIANTS for reduce in REDUCTIONS]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A dog, two dogs; the DOG!", ["dog", "two", "dogs", "dog"]),
        ("", []),
        ("the of and", []),
        ("T-shirt and jack-o'-lantern", ["shirt", "jack", "lantern"]),
        ("the dog's bone, don't, o'clock", ["dog", "bone", "oclock"]),
        ("the dog\u2019s bone", ["dog", "bone"]),
        ("caf\u00e9 cafe\u0301", ["caf\u00e9", "caf\u00e9"]),
        ("\ufb01sh \uff24\uff2f\uff27", ["fish", "dog"]),
        ("born 1984 in 3d 1st", ["born", "3d", "1st"]),
        ("snow_man snow\u00adman", ["snow", "man", "snowman"]),
        ("\u0939\u093f\u0928\u094d\u0926\u0940 \u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd", None),
        ("\u72ac \u0441\u043e\u0431\u0430\u043a\u0430", ["\u0441\u043e\u0431\u0430\u043a\u0430"]),
    ],
)
def test_plain_text_becomes_its_words(text, words):
    found = Normaliser().tokens(text)
    if words is None:  # scripts that write vowels as marks: one word each, none cut at a mark
        assert len(found) == 2
    else:
        assert found == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("#SunsetBeach", ["sunset", "beach"]),
        ("#NYCMarathon2019", ["nyc", "marathon"]),
        ("#sunset_beach #sunsetbeach", ["sunset", "beach", "sunsetbeach"]),
        ("love it @anna https://example.org/SomePage #Dog", ["love", "dog"]),
        ("NoHashtag", ["nohashtag"]),
        ("a@b is no mention", ["mention"]),
    ],
)
def test_hashtags_are_cut_into_words(text, words):
    assert Normaliser(variant="hashtag").tokens(text) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("'''Paris''' is the [[capital city|capital]] of [[France]].", ["paris", "capital", "france"]),
        ("dog {{cite book|title=X {{nested}} }} cat", ["dog", "cat"]),
        ("{| class=wikitable\n|-\n| cell |}tail", ["tail"]),
        ("[[File:a.jpg|thumb|A [[dog]] runs]]kept", ["kept"]),
        ("a<ref name=x>hidden</ref> word<ref name=x/> <!-- hidden -->&nbsp;<br/>end", ["word", "end"]),
        ("== History ==\n* item\n[http://example.org the site]", ["history", "item", "site"]),
        ("__NOTOC__ [[Category:Dogs]] text", ["text"]),
    ],
)
def test_leftover_wiki_markup_goes_and_what_a_reader_sees_stays(text, words):
    assert Normaliser(variant="wiki").tokens(text) == words


def test_stems_and_lemmas_bring_forms_of_a_word_together():
    text = "women running beaches"
    assert Normaliser(reduce="lemma").tokens(text) == ["woman", "run", "beach"]
    assert Normaliser(reduce="stem").tokens(text) == ["women", "run", "beach"]
    assert Normaliser(reduce="stem", language="de", stop_words=None).tokens("H\u00e4usern") == ["haus"]


def test_accents_are_kept_or_stripped_and_marks_of_other_scripts_are_kept():
    assert Normaliser(accents="strip").tokens("caf\u00e9 \u00c5ngstr\u00f6m") == ["cafe", "angstrom"]
    hindi = "\u0939\u093f\u0928\u094d\u0926\u0940"
    assert Normaliser(accents="strip").tokens(hindi) == [hindi]


def test_stop_words_are_ours_or_those_given_or_none():
    assert Normaliser(stop_words=None).tokens("the dog") == ["the", "dog"]
    assert Normaliser(stop_words="dog cat").tokens("the dog") == ["the"]
    assert Normaliser(min_length=1, numbers=True, stop_words=None).tokens("a 1") == ["a", "1"]


@pytest.mark.parametrize("normaliser", [*NORMALISERS, Normaliser(stop_words="dog cat"), Normaliser(stop_words=None, min_length=1)])
def test_json_gives_an_equal_normaliser_back(normaliser):
    values = json.loads(json.dumps(normaliser.to_json()))
    assert Normaliser.from_json(values) == normaliser


def test_the_json_lists_the_stop_words_so_that_an_old_space_keeps_its_own():
    values = Normaliser().to_json()
    assert "the" in values["stop_words"]
    older = Normaliser.from_json({**values, "stop_words": ["cat", "the"]})
    assert older.tokens("the cat and dog") == ["and", "dog"]


@pytest.mark.parametrize(
    ("settings_", "named"),
    [
        ({"variant": "tweets"}, "hashtag"),
        ({"reduce": "stem", "language": "xx"}, "xx"),
        ({"reduce": "lemma", "language": "zz"}, "zz"),
        ({"min_length": 0}, "min_length"),
        ({"accents": "maybe"}, "strip"),
    ],
)
def test_a_wrong_setting_is_an_error_that_names_what_there_is(settings_, named):
    with pytest.raises(InputError, match=named):
        Normaliser(**settings_)


def test_a_setting_of_a_newer_release_is_an_error():
    with pytest.raises(InputError, match="sarcasm.*newer"):
        Normaliser.from_json({**Normaliser().to_json(), "sarcasm": True})


@settings(max_examples=60, deadline=None)
@given(text=st.text(), normaliser=st.sampled_from(NORMALISERS))
def test_any_text_becomes_words_without_blanks_and_again_the_same(text, normaliser):
    words = normaliser.tokens(text)
    assert words == normaliser.tokens(text)
    assert all(word and not any(character.isspace() for character in word) for word in words)


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(max_codepoint=0x2FF)))
def test_words_that_are_not_reduced_are_their_own_words(text):
    normaliser = Normaliser()
    words = normaliser.tokens(text)
    assert normaliser.tokens(" ".join(words)) == words


@pytest.mark.parametrize("piece", ["[[", "{{", "{|", "<ref>", "[http://", "#a", "<", "''", "a'", "[[File:", "e\u0301", "<!--"])
@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_the_work_on_a_text_grows_with_its_length(variant, piece, assert_linear):
    normaliser = Normaliser(variant=variant)
    assert_linear(normaliser.tokens, lambda length: piece * length)
    assert all(map(str.strip, normaliser.tokens(piece * 50_000)))  # a pattern that looks on from each of its openings would take minutes


def test_threads_stem_the_same_words_as_one():
    words = [f"{stem}{ending}" for stem in ("walk", "jump", "cook", "paint") for ending in ("s", "ed", "ing", "er")] * 20
    normaliser = Normaliser(reduce="stem")
    wanted = [normaliser.tokens(word) for word in words]
    REDUCTIONS["stem"].cache_clear()
    found: list[list[list[str]]] = []
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=lambda: found.append([normaliser.tokens(word) for word in words])) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switch)
    assert found == [wanted] * 4


@pytest.mark.parametrize(
    ("form", "word"), [("playing", "play"), ("swinging", "swing"), ("singing", "sing"), ("making", "make"), ("dogs", "dog")]
)
def test_forms_of_a_frequent_word_meet_in_its_lemma(form: str, word: str) -> None:
    assert Normaliser(reduce="lemma").tokens(f"{form} {word}") == [word, word]
