"""What a box may name: this project's own classes, and those of packages that the user trusts. A box is data, no matter who made it.

    find_class("multimodal.towers.Head", HEADS, nn.Module, Path("exports/topic"))                 # a class of ours
    find_class("mypackage.huber.Huber", OBJECTIVES, Objective, Path("exports/mine"), ["mypackage"])   # one that the user trusts
    Builder(Path("exports/topic"), SLOTS).build({"class_path": "multimodal.towers.Head", "init_args": {...}}, nn.Module, HEADS)

Nothing is imported or called because a box names it. A class is looked up in a list of ours, or is in a package that was given with
`--trust`; its arguments are plain values that fit its signature, or descriptions of classes under the same rule. Recipes of `multimodal
fit` are not read this way: they are the user's own, and may name anything that can be imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from multimodal.boxes import MANIFEST
from multimodal.errors import InputError, not_importable

Classes = Mapping[str, type]
"""Dotted path -> the class that a box may name with it."""

_SHOWN = 80
_UNFIT = object()


def classes_of(room: types.ModuleType, base: type, names: Collection[str] | None = None) -> dict[str, type]:
    """The classes of a module derived from `base`, by their paths in it and in the module that defines them.

    names: only these; by default all that the module lists in `__all__`.
    """
    found: dict[str, type] = {}
    for name in room.__all__ if names is None else names:
        one = getattr(room, name)
        if isinstance(one, type) and issubclass(one, base) and not inspect.isabstract(one):
            found |= {f"{room.__name__}.{name}": one, f"{one.__module__}.{one.__qualname__}": one}
    return found


def find_class(named: Any, ours: Classes, base: type, box: Path, trust: Sequence[str] = ()) -> type:
    """The class that a box names: one of ours, or a `base` in a package that the user trusts.

    trust: names of packages. InputError, and nothing imported, if it is neither.
    """
    if isinstance(named, str) and named in ours:
        return ours[named]
    if not isinstance(named, str) or not all(part.isidentifier() for part in named.split(".")) or "." not in named:
        raise InputError(f"{box}: names {_short(named)}; expected the path of a class, such as {next(iter(ours), 'mypackage.MyClass')}")
    if isinstance(trust, str):
        raise InputError(f"trust={trust!r}: expected a list of packages, such as trust=[{trust!r}]")
    if not _is_in(named, trust):
        package = named.partition(".")[0]
        raise InputError(
            f"{box}: names the class {_short(named, quoted=False)}, which is not one of this project's for this place, so it was neither "
            f"imported nor run. If you trust its package, and whoever made this folder, add: --trust {package} "
            f'(in Python: trust=["{package}"])'
        )
    return _trusted_class(named, ours, base, box, trust)


def _trusted_class(named: str, ours: Classes, base: type, box: Path, trust: Sequence[str]) -> type:
    module, _, name = named.rpartition(".")
    _check_is_elsewhere(module.partition(".")[0], box)
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"{box}: its class {named} cannot be imported ({error}). {not_importable(named)}") from None
    if not isinstance(found, type) or not issubclass(found, base):
        raise InputError(f"{box}: {named} is not {'a class' if base is object else f'a {base.__name__} class'}, so it was not called")
    if found not in ours.values() and not _is_in(f"{found.__module__}.{found.__qualname__}", trust):
        raise InputError(
            f"{box}: {named} is the class {found.__module__}.{found.__qualname__} of another package. Trust that one too: "
            f"--trust {found.__module__.partition('.')[0]}"
        )
    return found


def import_trusted(package: str, box: Path) -> None:
    """Import a package that the user trusts, for what it registers; InputError if there is none, or if it is in the box."""
    _check_is_elsewhere(package.partition(".")[0], box)
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise InputError(f"--trust {package}: cannot be imported ({error}). {not_importable(package)}") from None


def _is_in(named: str, packages: Sequence[str]) -> bool:
    return any(named.startswith(f"{package}.") for package in packages)


def _outermost(box: Path) -> Path:
    """The box that contains a box, as a store contains its query side and a set its columns; itself if there is none."""
    holders = [folder for folder in (box, *box.parents) if (folder / MANIFEST).is_file()]
    return holders[-1] if holders else box


def _check_is_elsewhere(package: str, box: Path) -> None:
    """InputError if the package would be imported from the box itself: that is not the package that the user means."""
    try:
        spec = importlib.util.find_spec(package)  # of a top-level name: imports nothing
    except ValueError:  # a loaded module without a spec, such as __main__
        spec = None
    if spec is None:
        return  # importing it says why
    inside = _outermost(Path(box).resolve())
    for place in [*([spec.origin] if spec.has_location and spec.origin else []), *(spec.submodule_search_locations or [])]:
        if Path(place).resolve().is_relative_to(inside):
            raise InputError(
                f"{box}: the trusted package {package} would be imported from this very folder ({place}), so it was not. "
                "Install the package, or keep it in a folder of its own and name that: PYTHONPATH=FOLDER"
            )


@dataclass(frozen=True, slots=True)
class Builder:
    """Makes the objects that a box describes as `{"class_path": ..., "init_args": {...}}`.

    box: the box with the descriptions. slots: the type of a parameter -> our classes that a box may name for it.
    trust: packages whose classes it may name too. finish: the type of a parameter -> a function applied to the object made for it.
    """

    box: Path
    slots: Mapping[type, Classes]
    trust: Sequence[str] = ()
    finish: Mapping[type, Callable[[Any], Any]] = field(default_factory=dict)

    def build(self, described: Any, base: type, ours: Classes | None = None) -> Any:
        """The object; InputError if its class is neither ours nor trusted, or its arguments do not fit the signature.

        ours: our classes that are allowed here; by default those of the slot `base`.
        """
        described = {"class_path": described} if isinstance(described, str) else described
        if not isinstance(described, Mapping) or not set(described) <= {"class_path", "init_args"}:
            raise InputError(f"{self.box}: expected class_path and init_args of a {base.__name__}, got {_short(described)}")
        named, given = described.get("class_path"), described.get("init_args")
        found = find_class(named, self.slots.get(base, {}) if ours is None else ours, base, self.box, self.trust)
        arguments = self._arguments(found, {} if given is None else given)
        try:
            made = found(**arguments)
        except InputError:
            raise
        except (TypeError, ValueError, LookupError, ArithmeticError, AssertionError, RuntimeError, MemoryError) as error:
            # what classes raise if values do not go together
            raise InputError(f"{self.box}: {named} cannot be made with {_short(given)}: {' '.join(str(error).split())}") from None
        finish = self.finish.get(base)
        return made if finish is None else finish(made)

    def _arguments(self, of: type, given: Any) -> dict[str, Any]:
        wanted = parameters_of(of)
        if not isinstance(given, Mapping):
            raise InputError(f"{self.box}: the init_args of {of.__name__} are {_short(given)}; expected names with values")
        if unknown := [name for name in given if name not in wanted]:
            raise InputError(f"{self.box}: {of.__name__} has no argument {_short(unknown[0])}. It has: {', '.join(wanted) or 'none'}")
        return {name: self._value(value, wanted[name], f"{of.__name__}: {name}") for name, value in given.items()}

    def _value(self, value: Any, annotation: Any, where: str) -> Any:
        choices = typing.get_args(annotation) if typing.get_origin(annotation) in (typing.Union, types.UnionType) else (annotation,)
        for choice in sorted(choices, key=_is_slot):  # a class last, since it would take any string for its path
            converted = self._as(value, choice, where)
            if converted is not _UNFIT:
                return converted
        raise InputError(f"{self.box}: {where}={_short(value)} does not fit; expected {_type_name(annotation)}")

    def _as(self, value: Any, wanted: Any, where: str) -> Any:
        """The value converted to one type, or _UNFIT."""
        origin, inner = typing.get_origin(wanted), typing.get_args(wanted)
        if wanted in (Any, inspect.Parameter.empty):
            return value if _is_plain(value) else _UNFIT
        if wanted in (None, types.NoneType):
            return None if value is None else _UNFIT
        if wanted in (bool, str):
            return value if isinstance(value, wanted) else _UNFIT
        if wanted in (int, float):
            number = isinstance(value, int if wanted is int else int | float) and not isinstance(value, bool)
            try:
                return wanted(value) if number else _UNFIT
            except OverflowError:  # an integer too large for a float
                return _UNFIT
        if origin is typing.Literal:
            return value if any(type(value) is type(one) and value == one for one in inner) else _UNFIT
        kind = origin or wanted
        if not isinstance(kind, type):
            return _UNFIT
        if issubclass(kind, PurePath):
            return kind(value) if isinstance(value, str) else _UNFIT
        if issubclass(kind, Mapping):
            values = inner[1] if inner else Any
            fits = isinstance(value, Mapping) and "class_path" not in value
            return {name: self._value(one, values, f"{where}.{name}") for name, one in value.items()} if fits else _UNFIT
        if issubclass(kind, Sequence):
            return self._sequence(value, kind, inner, where)
        return self.build(value, kind) if isinstance(value, str) or (isinstance(value, Mapping) and "class_path" in value) else _UNFIT

    def _sequence(self, value: Any, kind: type, inner: tuple[Any, ...], where: str) -> Any:
        if not isinstance(value, list | tuple):
            return _UNFIT
        fixed = issubclass(kind, tuple) and inner and inner[-1] is not Ellipsis
        if fixed and len(inner) != len(value):
            return _UNFIT
        types_of = inner if fixed else (inner[0] if inner else Any,) * len(value)
        converted = [self._value(one, wanted, f"{where}[{at}]") for at, (one, wanted) in enumerate(zip(value, types_of, strict=True))]
        return tuple(converted) if issubclass(kind, tuple) else converted


def parameters_of(of: type) -> dict[str, Any]:
    """Name -> annotation of all parameters of a class; with `**kwargs` also those of its base classes, which get the rest."""
    found: dict[str, Any] = {}
    for one in of.__mro__:
        if "__init__" not in vars(one) or one is object:
            continue
        function = vars(one)["__init__"]
        try:
            hints = typing.get_type_hints(function)
        except NameError:  # names that only a type checker imports: plain values do without
            hints = {}
        parameters = list(inspect.signature(function).parameters.values())[1:]
        named = [each for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
        found = {each.name: hints.get(each.name, inspect.Parameter.empty) for each in named} | found
        if all(each.kind != each.VAR_KEYWORD for each in parameters):
            break
    return found


def _is_slot(wanted: Any) -> bool:
    """Whether it is a class whose objects a box describes, not a plain value."""
    return isinstance(wanted, type) and not issubclass(wanted, int | float | str | types.NoneType | PurePath | Mapping | Sequence)


def _is_plain(value: Any) -> bool:
    """A JSON value that does not describe an object."""
    if isinstance(value, Mapping):
        return "class_path" not in value and all(map(_is_plain, value.values()))
    return all(map(_is_plain, value)) if isinstance(value, list) else isinstance(value, str | int | float | None)


def _short(value: Any, quoted: bool = True) -> str:
    """The value on one line, as a message shows it."""
    shown = repr(value) if quoted else str(value)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."


def _type_name(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) and not typing.get_args(annotation) else str(annotation)
