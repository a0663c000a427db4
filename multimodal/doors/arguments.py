"""A function's signature and docstring as its command line.

    [settings] = parse("multimodal search", ["--store", "S", "woman + scientist - man"], search)
    search(**settings)

- Every parameter is an option, `pairs_per_shard` being `--pairs-per-shard`; one without a default may also be given by position, in order.
- A bool is a flag (`--json`, or `--json false`); a list takes one value or several (`--names a b`).
- A bool or one of some words is a flag that may have a word after `=`: `--pictures`, `--pictures=sixel`.
- `--config settings.yaml` gives any of them from a file, or from a shipped recipe of that name; an unknown key is an error.
- The fields of a frozen dataclass are options of their own: `--split.seed 1`.
- An object is made from its class's arguments: `--trunk.architecture resnet18 --trunk.weights multimodal.towers.NoWeights`.
- One made later, from a dataclass of `class_path` and `init_args`, is given the same way: `--engine mypackage.HNSW --engine.links 16`.
- The docstring's first part is the description, and the text after `name: ` is the help of that parameter.
- Examples are the lines that begin with the command, in the description or else in the docstrings of the functions' modules.
"""

from __future__ import annotations

import inspect
import json
import re
import shutil
import textwrap
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from itertools import chain
from pathlib import PurePath
from typing import Any

from multimodal.doors import recipes
from multimodal.errors import InputError, near_names
from multimodal.urls import url_in

HELP_WIDTH = 110


@dataclass(frozen=True, slots=True)
class Filled:
    """A function with some parameters that its caller fills, so that they are not options."""

    function: Callable[..., Any]
    names: Collection[str]


def parse(prog: str, arguments: Sequence[str], *functions: Callable[..., Any] | Filled) -> list[dict[str, Any]]:
    """The settings of one or several functions, read from one command line: a dictionary of keyword arguments for each.

    The command has the description of the first one.
    InputError: an unknown option, a missing or surplus value, a value that is not of the parameter's type.
    SystemExit(0): help was requested, and printed.
    """
    filled = [function if isinstance(function, Filled) else Filled(function, ()) for function in functions]
    every = [parameter for one in filled for parameter in _parameters(one.function, one.names)]
    _check_names([parameter.option for parameter in every])
    if any(token in ("-h", "--help") for token in arguments):
        description = _description(filled[0].function)
        if not _commands(prog, description):
            examples = (_commands(prog, inspect.getdoc(inspect.getmodule(one.function)) or "") for one in filled)
            description = "\n\n".join([description, *filter(None, ["\n".join(dict.fromkeys(chain(*examples)))])])
        print(_help(prog, description, every))
        raise SystemExit(0)
    try:
        values = _typed(_Given.read(arguments, every), every)
    except InputError as error:
        raise InputError(f"{error}{'' if str(error).endswith('?') else '.'} See: {prog} --help") from None
    return [_keywords(one.function, values, one.names) for one in filled]


def _check_names(options: Sequence[str]) -> None:
    for option in options:
        if options.count(option) > 1:
            raise InputError(f"{option} is a parameter of two functions that share this command. Rename it in yours")


@dataclass(frozen=True, slots=True)
class _Parameter:
    name: str
    type: Any
    default: Any
    meaning: str

    @property
    def option(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def is_required(self) -> bool:
        return self.default is inspect.Parameter.empty

    @property
    def is_flag(self) -> bool:
        return self.type is bool or (bool in _choices(self.type) and bool(self.literals))

    @property
    def literals(self) -> list[Any]:
        """The words that it may be."""
        return [value for choice in _choices(self.type) if typing.get_origin(choice) is typing.Literal for value in choice.__args__]

    @property
    def is_list(self) -> bool:
        return any(_is_list(choice) for choice in _choices(self.type))

    @property
    def is_object(self) -> bool:
        """Whether it is an instance of a class whose own arguments are options below this one."""
        return not self.is_list and any(
            isinstance(choice, type) and choice.__module__ != "builtins" and not issubclass(choice, PurePath)
            for choice in _choices(self.type)
        )

    @property
    def recipe(self) -> type | None:
        """The dataclass of `class_path` and `init_args` that describes an object made later, if the parameter is one."""
        names = {"class_path", "init_args"}
        found = (
            one for one in _choices(self.type) if isinstance(one, type) and is_dataclass(one) and {f.name for f in fields(one)} == names
        )
        return next(found, None)

    @property
    def placeholder(self) -> str:
        if self.literals:
            words = "|".join(map(str, self.literals))
            return f"[={words}]" if self.is_flag else words
        return "" if self.is_flag else self.name.rpartition(".")[2].upper() + (" ..." if self.is_list else "")


def _parameters(function: Callable[..., Any], skip: Collection[str] = ()) -> Iterator[_Parameter]:
    """The parameters of a function except those to skip; a dataclass gives those of its fields, called `name.field`."""
    hints = typing.get_type_hints(function)
    parameters = inspect.signature(function).parameters
    told = meanings(inspect.getdoc(function) or "", parameters)
    for name, parameter in parameters.items():
        if name in skip:
            continue
        if name not in hints:
            raise InputError(f"{function.__qualname__}: its parameter {name} has no type. Write one, such as {name}: int = 3")
        if not is_dataclass(hints[name]):
            yield _Parameter(name, hints[name], parameter.default, told.get(name, ""))
            continue
        for inner in _parameters(hints[name]):
            default = inner.default if parameter.default is inspect.Parameter.empty else getattr(parameter.default, inner.name)
            yield replace(inner, name=f"{name}.{inner.name}", default=default)


def _keywords(function: Callable[..., Any], values: Mapping[str, Any], skip: Collection[str] = (), prefix: str = "") -> dict[str, Any]:
    """The keyword arguments of a function, with dataclasses put together again, from values by dotted name."""
    hints = typing.get_type_hints(function)
    return {
        name: hints[name](**_keywords(hints[name], values, prefix=f"{prefix}{name}."))
        if is_dataclass(hints[name])
        else values[prefix + name]
        for name in inspect.signature(function).parameters
        if name not in skip
    }


def _choices(annotation: Any) -> tuple[Any, ...]:
    """The types of a union, or the type itself."""
    return typing.get_args(annotation) if typing.get_origin(annotation) in (typing.Union, types.UnionType) else (annotation,)


def _is_list(annotation: Any) -> bool:
    origin = typing.get_origin(annotation) or annotation
    return isinstance(origin, type) and issubclass(origin, Collection) and not issubclass(origin, str | bytes | dict)


# -- the help ------------------------------------------------------------------------------------------------------------------------------


def _told(names: Collection[str]) -> re.Pattern[str]:
    """Matches where a docstring describes parameters: `name: ` or `name, name: ` at the start of a line or of a sentence."""
    name = "|".join(map(re.escape, names)) or "(?!)"
    return re.compile(rf"(?:^[ ]*|(?<=[.;] ))((?:{name})(?:, (?:{name}))*): ", re.MULTILINE)


def meanings(docstring: str, names: Collection[str]) -> dict[str, str]:
    """Parameter -> the text after `name: ` in a docstring, on one line."""
    found = {}
    for block in re.split(r"\n\s*\n", docstring):
        marks = list(_told(names).finditer(block))
        ends = [*(mark.start() for mark in marks), len(block)][1:]
        for mark, end in zip(marks, ends, strict=True):
            meaning = re.split(r"\n(?=[A-Z]\w*: )", block[mark.end() : end])[0]  # "InputError: ..." is about exceptions
            found.update({name: " ".join(meaning.split()).rstrip(".;") for name in mark[1].split(", ")})
    return found


def _description(function: Callable[..., Any]) -> str:
    docstring = inspect.getdoc(function) or ""
    mark = _told(inspect.signature(function).parameters).search(docstring)
    return docstring[: mark.start() if mark else None].strip().removesuffix("Args:").strip()


def _commands(prog: str, docstring: str) -> list[str]:
    """The lines of a docstring that are this command with its options, as help shows them."""
    lines = [line.strip() for line in docstring.splitlines()]
    return [f"  {line}" for line in lines if line.replace("_", "-").startswith(f"{prog.replace('_', '-')} ")]


def _help(prog: str, description: str, parameters: list[_Parameter]) -> str:
    required = [f"[{parameter.option}] {parameter.placeholder}" for parameter in parameters if parameter.is_required]
    shown = sorted(parameters, key=lambda parameter: not parameter.is_required)  # each of several functions may have some
    rows = [(f"{parameter.option} {parameter.placeholder}", _meaning_and_default(parameter)) for parameter in shown]
    rows += [
        ("--config YAML", "a file, or a shipped recipe, with any of these settings"),
        ("--help", "show this help and exit"),
    ]
    column = min(max(len(left) for left, _ in rows), 34) + 4
    width = min(HELP_WIDTH, shutil.get_terminal_size().columns)
    lines = [" ".join(["usage:", prog, *required, "[options]"]), "", description, ""]
    for left, meaning in rows:
        wrapped = textwrap.wrap(meaning, max(width - column, 30)) or [""]
        fits = len(left) + 4 <= column
        lines += [f"  {left:<{column - 2}}{wrapped[0]}".rstrip()] if fits else [f"  {left}", " " * column + wrapped[0]]
        lines += [" " * column + line for line in wrapped[1:]]
    return "\n".join(lines)


def _meaning_and_default(parameter: _Parameter) -> str:
    if parameter.is_required:
        return f"{parameter.meaning} (required)".strip()
    if parameter.default in (None, ()) or (parameter.is_flag and not parameter.default):
        return parameter.meaning
    return f"{parameter.meaning} (default: {parameter.default})".strip()


# -- the values ----------------------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Given:
    """The command line before conversion to types: values by parameter name, arguments of objects, and files of settings."""

    values: dict[str, list[str]] = field(default_factory=dict)
    below: list[str] = field(default_factory=list)
    configs: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, arguments: Sequence[str], parameters: list[_Parameter]) -> _Given:
        """Done here instead of by argparse, because a value may begin with a minus (`"-man + woman"` is a query), and because a parameter
        without a default may be given by name or by position.
        """
        given, placed = cls(), []
        options = {parameter.option: parameter for parameter in parameters}
        rest = list(arguments)
        while rest:
            token = rest.pop(0)
            if token == "--":
                placed += rest
                break
            if not token.startswith("--"):
                placed.append(token)
                continue
            name, equals, value = token.partition("=")
            owner = options.get(name.partition(".")[0].replace("_", "-"))
            if owner is not None and owner.is_object and "." in name:
                if not equals and not rest:
                    raise InputError(f"{name} needs a value")
                given.below.append(f"{owner.option}.{name.partition('.')[2]}={value if equals else rest.pop(0)}")
                continue
            name = name.replace("_", "-")
            parameter = options.get(name)
            if parameter is None and name != "--config":
                raise InputError(f"there is no option {name}. {near_names(name, options)}")
            values = [value] if equals else _take(rest, parameter)
            if not values:
                raise InputError(f"{name} needs a value")
            (given.configs if parameter is None else given.values.setdefault(parameter.name, [])).extend(values)
        given._place(placed, [parameter for parameter in parameters if parameter.is_required and parameter.name not in given.values])
        for parameter in parameters:
            values = given.values.get(parameter.name, [])
            if len(values) > 1 and not parameter.is_list:
                raise InputError(f"{parameter.option} is given {len(values)} times: {', '.join(values)}")
            if parameter.is_required and not values and not given.configs:
                raise InputError(f"{parameter.option} is missing")
        return given

    def _place(self, placed: list[str], wanted: list[_Parameter]) -> None:
        """Values without a name go to the required parameters that have no value yet, in order; a list takes what the others leave."""
        surplus = len(placed) - len(wanted)
        for parameter in wanted[: len(placed)]:
            num = 1 + max(surplus, 0) if parameter.is_list else 1
            self.values[parameter.name], placed = placed[:num], placed[num:]
            surplus -= num - 1
        if placed:
            raise InputError(f"unexpected value {placed[0]!r}")


def _take(rest: list[str], parameter: _Parameter | None) -> list[str]:
    """Remove the option's values from the front of the remaining tokens."""
    following = next((number for number, token in enumerate(rest) if token.startswith("--")), len(rest))
    if parameter is not None and parameter.is_flag:
        return [rest.pop(0)] if following and rest[0].lower() in ("true", "false") else ["true"]
    num = following if parameter is not None and parameter.is_list else min(1, len(rest))
    taken, rest[:num] = rest[:num], []
    return taken


def _typed(given: _Given, parameters: list[_Parameter]) -> dict[str, Any]:
    """The values converted to their types, by dotted name."""
    from argparse import ArgumentError

    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False, add_help=False)
    if not any(parameter.name == "config" for parameter in parameters):
        parser.add_argument("--config", action="config")
    for parameter in parameters:
        default = {"required": True} if parameter.is_required else {"default": parameter.default}
        parser.add_argument(parameter.option, type=dict[str, Any] | None if parameter.recipe else parameter.type, **default)
    line = [f"--config={recipes.find(file)}" for file in given.configs]
    for parameter in parameters:
        values = given.values.get(parameter.name, [])
        if parameter.is_list and values and not values[0].startswith("["):
            values = [json.dumps(values, ensure_ascii=False)]
        if parameter.recipe and (values or _below(given, parameter)):
            values = [json.dumps(_described(given, parameter, values))]
        line += [f"{parameter.option}={value}" for value in values]
    line += [token for token in given.below if not any(token in _below(given, one) for one in parameters if one.recipe)]
    try:
        values = parser.instantiate(parser.parse_args(line))
    except ArgumentError as error:
        raise InputError(_plain(str(error), parameters)) from None
    except ValueError as error:  # from an object that may also be None: jsonargparse wraps what its class raised
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        raise
    for parameter in parameters:
        value = values[parameter.name]
        for path in value if isinstance(value, list | tuple) else (value,):
            if url := url_in(path):
                raise InputError(f"{parameter.option}: {url} is a URL; only a local path can be given here")
    return {parameter.name: _made(parameter, values[parameter.name]) for parameter in parameters}


def _below(given: _Given, parameter: _Parameter) -> list[str]:
    return [token for token in given.below if token.startswith(f"{parameter.option}.")]


def _described(given: _Given, parameter: _Parameter, values: Sequence[str]) -> dict[str, Any]:
    """The class path and arguments of an object made later, from `--engine mypackage.HNSW --engine.links 16`."""
    import yaml

    if not values:
        raise InputError(f"{_below(given, parameter)[0].partition('=')[0]} is given without {parameter.option} <class path>")
    arguments = (token.removeprefix(f"{parameter.option}.").partition("=") for token in _below(given, parameter))
    return {"class_path": values[0], "init_args": {name.replace("-", "_"): yaml.safe_load(value) for name, _, value in arguments}}


def _made(parameter: _Parameter, value: Any) -> Any:
    """The value read for a parameter, as the function takes it."""
    if parameter.recipe is None or value is None:
        return value
    if not isinstance(value, Mapping) or not {"class_path"} <= set(value) <= {"class_path", "init_args"}:
        raise InputError(f"{parameter.option}: expected class_path and init_args, got {value}")
    return parameter.recipe(**value)


def _plain(message: str, parameters: list[_Parameter]) -> str:
    """jsonargparse's message on one line, with the option's name as the user wrote it."""
    message = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", " ".join(message.split()).rstrip("."))
    message = re.sub(r"Does not validate against .*? - (Problem with given class_path .*?)(?: - Expected .*|$)", r"\1", message)
    message = re.sub(r"Expected an? (?:typing\.)?(.+?)\. Got value: ", r"expected \1, got ", message)
    union = r"Does not validate against any of the Union subtypes Subtypes: \[(.*?)\] Errors: .*? Given value type: \w+ Given value: (.*)"
    message = re.sub(union, lambda found: f"expected {found[1].replace(', NoneType', '')}, got {found[2]}", message)
    for name, option in [("config", "--config"), *((parameter.name, parameter.option) for parameter in parameters)]:
        message = message.replace(f'Parser key "{name}"', option)
    return message
