from __future__ import annotations

import csv
from pathlib import Path

import pytest

from multimodal.errors import InputError
from multimodal.shards import Ledger
from multimodal.shards.ledger import NO_WORDS


def rows(path: Path) -> list[list[str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_nothing_bad_writes_no_file_and_takes_an_old_one_away(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("where,key,reason\nold,1,gone\n")
    with Ledger(path) as ledger:
        ledger.good(3)
    assert not path.exists()


def test_few_bad_ones_are_written_down_and_the_job_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    with Ledger(path, max_bad_share=0.5) as ledger:
        ledger.good()
        ledger.bad("photos", 'a "quoted", name.jpg', "not an image\nat all")
    assert rows(path) == [["where", "key", "reason"], ["photos", 'a "quoted", name.jpg', "not an image\nat all"]]


def test_too_many_bad_ones_fail_with_share_limit_and_first_reasons(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"5 of 10 are bad \(50.0%\), more than --max-bad-share 0.05.*photos 0.jpg: truncated.*and 2 more.*bad.csv"
    ):
        with Ledger(tmp_path / "bad.csv") as ledger:
            ledger.good(5)
            for number in range(5):
                ledger.bad("photos", f"{number}.jpg", "truncated")
    assert len(rows(tmp_path / "bad.csv")) == 6


def test_one_line_may_stand_for_many_and_they_count_in_the_share(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"4 of 10 are bad \(40.0%\).*: photos shard 3: lost. All of them"):
        with Ledger(tmp_path / "bad.csv", max_bad_share=0.3) as ledger:
            ledger.good(6)
            ledger.bad("photos", "shard 3", "lost", count=4)
    assert rows(tmp_path / "bad.csv")[1:] == [["photos", "shard 3", "lost"]]


def test_the_share_may_be_at_the_limit_but_not_above(tmp_path: Path) -> None:
    with Ledger(tmp_path / "bad.csv", max_bad_share=0.5) as ledger:
        ledger.good()
        ledger.bad("photos", "1.jpg", "truncated")
    ledger.bad("photos", "2.jpg", "truncated")
    with pytest.raises(InputError, match="2 of 3"):
        ledger.close()


def test_nothing_good_left_fails_whatever_the_share(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing good is left: photos 1.jpg: truncated"):
        with Ledger(tmp_path / "bad.csv", max_bad_share=1.0) as ledger:
            ledger.bad("photos", "1.jpg", "truncated")


def test_empty_input_fails(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing was read"), Ledger(tmp_path / "bad.csv"):
        pass


def test_an_error_in_the_body_is_not_covered_up_and_the_record_is_kept(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="unplugged"):
        with Ledger(tmp_path / "bad.csv") as ledger:
            ledger.bad("photos", "1.jpg", "truncated")
            raise OSError("unplugged")
    assert len(rows(tmp_path / "bad.csv")) == 2


def test_a_share_outside_zero_to_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="max_bad_share is 5"):
        Ledger(tmp_path / "bad.csv", max_bad_share=5)


def test_texts_without_a_known_word_are_counted_and_listed_apart_and_never_too_many(tmp_path: Path) -> None:
    with Ledger(tmp_path / "bad.csv", max_bad_share=0.2) as ledger:
        ledger.good()
        ledger.bad("photos", "1.jpg", f"{NO_WORDS}'Acropolis'", count=9)
        ledger.bad("photos", "2.jpg", "truncated")
    assert (ledger.num_bad, ledger.num_without_words) == (1, 9)
    assert rows(tmp_path / "bad.csv")[1:] == [["photos", "2.jpg", "truncated"]]
    assert rows(tmp_path / "no_words.csv")[1:] == [["photos", "1.jpg", f"{NO_WORDS}'Acropolis'"]]
    with pytest.raises(InputError, match="nothing good is left: photos 1.jpg: the space knows no word of 'Acropolis'. All .*no_words"):
        with Ledger(tmp_path / "bad.csv") as ledger:
            ledger.bad("photos", "1.jpg", f"{NO_WORDS}'Acropolis'")
    assert not (tmp_path / "bad.csv").exists()
