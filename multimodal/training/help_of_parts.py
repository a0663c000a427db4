"""`multimodal fit --help.model.objective`: what one part of a recipe may be, with all its arguments; `--help` lists the parts.

print(help_of("model.objective"))       # each objective, what it is, its arguments and their defaults
print(help_of("trainer", {"max_epochs": 60}))   # --trainer.max_epochs and the others, with other defaults than the class's own
"""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

from lightning import Trainer

from multimodal.doors.arguments import meanings
from multimodal.errors import InputError, near_names
from multimodal.training.callbacks import Selection
from multimodal.training.datamodule import PairData
from multimodal.training.forgetting import Forgetting
from multimodal.training.help import WIDTH, by_name, row
from multimodal.training.module import PairModule
from multimodal.training.preflight import Preflight

SECTIONS: Mapping[str, type] = {
    "model": PairModule,
    "data": PairData,
    "selection": Selection,
    "forgetting": Forgetting,
    "preflight": Preflight,
    "trainer": Trainer,
}
"""Part -> the class whose arguments are its settings."""


LAZY = "LazyInstance_"
"""What jsonargparse calls an object that is a default, and is made when it is used."""
LINKED = frozenset({"data.seed"})
"""Settings that follow another one: `seed_everything`."""


def parts() -> dict[str, str]:
    """Part, as in --help.PART -> its title in `by_name`; "" for a section."""
    found = dict.fromkeys(SECTIONS, "")
    for title in by_name():
        names = [name.strip().removeprefix("--") for name in title.split(",")] if title.startswith("--") else [title.split(" ")[0]]
        found |= dict.fromkeys(names, title)
    return found


def help_of(part: str, defaults: Mapping[str, Any] = {}) -> str:
    """The help of a part, such as "model.objective" or "data"; InputError with the names that there are.

    defaults: of a section's settings, where they are not the class's own.
    """
    every = parts()
    if part not in every:
        raise InputError(f"--help.{part}: there is no such part. {near_names(part, every)}")
    lines = list(_section(part, SECTIONS[part], defaults) if part in SECTIONS else _choices(part, by_name()[every[part]]))
    return "\n".join(lines)


def _section(part: str, of: type, defaults: Mapping[str, Any]) -> Iterator[str]:
    yield f"--{part}: settings, each with its default in brackets. Those that are classes have a part of their own"
    yield ""
    for name, (meaning, default) in _arguments(of).items():
        if f"{part}.{name}" not in LINKED:
            default = _shown(defaults[name]) if name in defaults else default
            yield from row(f"--{part}.{name}", f"{meaning} [{default}]".strip())


def _choices(part: str, classes: Mapping[str, str]) -> Iterator[str]:
    """Classes with their arguments. Those of torch are named only: their own documentation has them."""
    is_option = "." in part
    yield f"{'--' if is_option else ''}{part}: one of these classes, or your own, named by its path; its arguments, each with its default"
    if is_option:
        yield f"  multimodal fit ... --{part} {next(iter(classes))}"
    for path, meaning in classes.items():
        module, _, name = path.rpartition(".")
        of = getattr(import_module(module), name)
        ours = path.startswith("multimodal.")
        yield from ("", path)
        yield from textwrap.wrap(_paragraph(of) if ours else meaning, WIDTH, initial_indent="  ", subsequent_indent="  ")
        for name, (told, default) in _arguments(of).items() if ours else ():
            yield from row(f"  {name}", f"{told} [{default}]".strip())


def _paragraph(of: type) -> str:
    """The first paragraph of a class's docstring, or of the class that it derives from."""
    return " ".join((inspect.getdoc(of) or "").split("\n\n")[0].split())


def _arguments(of: type) -> dict[str, tuple[str, str]]:
    """Name -> what it does, in one sentence or two, and its default; of a class's constructor."""
    init: Callable[..., Any] = of.__init__  # type: ignore[misc]
    parameters = {name: one for name, one in inspect.signature(init).parameters.items() if name != "self"}
    docstring = f"{inspect.getdoc(of) or ''}\n\n{inspect.getdoc(init) or ''}"
    told = meanings(docstring, parameters)
    given = {name: one for name, one in parameters.items() if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)}
    return {name: (_short(told.get(name, "")), _default(one)) for name, one in given.items()}


def _short(meaning: str) -> str:
    """A sentence or two, without the default, as Lightning's docstrings repeat it."""
    return textwrap.shorten(re.sub(r"\.? ?Defaults?:? .*", "", meaning), 2 * WIDTH, placeholder=" ...")


def _default(parameter: inspect.Parameter) -> str:
    if parameter.default is parameter.empty:
        return "required"
    return _shown(parameter.default)


def _shown(value: Any) -> str:
    """As YAML has it; an object by its class."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    name = type(value).__name__
    return name.removeprefix(LAZY) if name.startswith(LAZY) else str(value)
