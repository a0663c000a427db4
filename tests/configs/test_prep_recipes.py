"""Every shipped recipe of data-prep is what it says: its command is understood, and its settings are those of the source."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import yaml

from data_prep.shards.job import FILLED, OPENED, make_shards
from data_prep.sources import find_source
from multimodal.doors import recipes
from multimodal.doors.arguments import Filled, parse


@pytest.mark.parametrize("name", recipes.names("prep"))
def test_a_recipe_opens_with_its_command_which_takes_its_settings(name: str) -> None:
    text = (recipes.folder() / name).read_text()
    command = shlex.split(next(line for line in text.splitlines() if line.startswith("#   data-prep make-shards ")).lstrip("# "))
    source, *arguments = command[2:]
    assert arguments[:2] == ["--config", name]
    settings, options = parse("data-prep make-shards", arguments, Filled(find_source(source), FILLED), Filled(make_shards, OPENED))
    held = settings | options
    assert {key: held[key] for key in yaml.safe_load(text)} == yaml.safe_load(text)
    assert isinstance(settings["input"], Path) and options["output"]


def test_recipes_of_data_prep_and_of_fit_are_distinguished() -> None:
    assert recipes.names("prep") and not set(recipes.names("prep")) & set(recipes.names())
    assert recipes.find("prep/cc12m.yaml") == recipes.folder() / "prep" / "cc12m.yaml"
