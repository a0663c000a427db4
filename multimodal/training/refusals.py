"""jsonargparse's error about a command line or a config, in one line: where, what, and what was probably meant.

    refusal(error, known=["trainer.max_epochs", ...])     # "trainer.callbacks: ModelCheckpoint: Option 'evry' is not accepted. Did you ..."

For a class in a union (a callback, a logger, a panel of a logger), jsonargparse prints why each member of the union rejects it, as a tree
of indented lines. Users want to read the branch of the class that they named.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
import textwrap
from collections.abc import Collection
from dataclasses import dataclass, replace

from multimodal.errors import not_importable
from multimodal.export.renamed import refused

KEY = re.compile(r'Parser key "([^"]+)":[ \n]*?(?=\n|\S)')
PROBLEM = re.compile(r"Problem with given class_path '([\w.]+)':[ \n]*?(?=\n|\S)")
UNION = "Does not validate against any of the Union subtypes"
HOMELESS = re.compile(r"class_path='lightning\.pytorch\.\w+\.(\w+)', init_args=Namespace\((save_dir|dirpath)=None")
UNKNOWN = re.compile(r"unrecognized arguments: --([\w.]+)|[Oo]ption '([\w.]+)'")
SEE = "See: multimodal fit --help"


@dataclass(frozen=True, slots=True)
class Refusal:
    """where: the dotted key in the config. of: the class path that was given there. reason: what is wrong with it."""

    where: str = ""
    of: str = ""
    reason: str = ""

    def __str__(self) -> str:
        found = self.reason if self.where or not self.of else f"Problem with given class_path '{self.of}': {self.reason}"
        named = f"{self.of.rpartition('.')[2]}: " if self.of and self.where else ""
        return f"{self.where}: {named}{found}" if self.where else found


def refusal(error: Exception, known: Collection[str]) -> str:
    """One line; known: the dotted names of all options."""
    found = read(str(error).strip())
    flat = f"{found}".rstrip(".")
    if homeless := HOMELESS.search(str(error)):
        return f"{homeless[1]} needs a folder: set its {homeless[2]}. A relative path starts from the run's folder"
    if missing := re.search(r"No module named '([\w.]+)'$", flat):
        return f"{flat}. {not_importable(missing[1])}"
    if odd := re.search(r"Import path ([\w.]+) does not correspond to a subclass of (\w+)", flat):
        return f"{odd[1]}: is not a subclass of {odd[2]}. Derive your class from {odd[2]}"
    if unknown := UNKNOWN.search(flat):
        key = next(name for name in unknown.groups() if name)
        if group := re.search(r"Group '(\w+)'", flat):
            key = f"{group[1]}.{key}"
        if old := refused(key):
            return old
        names = parameters_of(found.of) if found.of else [name for name in known if not name.endswith(".help")]
        near = difflib.get_close_matches(key, names, n=1, cutoff=0.6)
        if near:
            return f"{flat}. Did you mean {near[0]}? {SEE}"
        return f"{flat}. It takes {', '.join(names)}" if found.of and names else f"{flat}. {SEE}"
    return f"{flat}. {SEE}"


def read(text: str, so_far: Refusal = Refusal()) -> Refusal:
    """The branch of a message that gives the reason; so_far: what the branches above it say."""
    text = textwrap.dedent(text.strip("\n")).strip()
    if key := KEY.match(text):
        where = f"{so_far.where}.{key[1]}" if so_far.where else key[1]
        return read(text[key.end() :], replace(so_far, where=where, of=""))
    if problem := PROBLEM.match(text):
        return read(text[problem.end() :], replace(so_far, of=problem[1]))
    if text.startswith(UNION):
        return _union(text, so_far)
    members = _members(text) if text.startswith("- ") else []
    named = [member for member in members if PROBLEM.match(member)]
    if named:
        return read(named[0], so_far)
    plain = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", " ".join(text.split()))
    plain = re.sub(r"Expected an? (?:typing\.)?(\S+?)\. Got value: ", r"expected \1, got ", plain)
    plain = re.sub(r"Type typing\.Callable\[.*?\] expects a function or a callable class: ", "", plain)
    if callable_class := re.search(r"(Option '\w+' is not accepted)\. Got value: Namespace\(class_path='([\w.]+)'.*", plain):
        return replace(so_far, of=callable_class[2], reason=callable_class[1])
    return replace(so_far, reason=plain)


def _union(text: str, so_far: Refusal) -> Refusal:
    """For a union, what is wrong with the class that was named, or else which types are accepted."""
    lines = text.splitlines()
    level = len(re.match(r" *", lines[1])[0]) if len(lines) > 1 else 0  # type: ignore[index]
    parts: dict[str, list[str]] = {}
    name = ""
    for line in lines[1:]:
        if heading := re.match(rf" {{{level}}}(Subtypes|Errors|Given value type|Given value):\s*(.*)", line):
            name = heading[1]
            parts[name] = [heading[2]]
        elif name:
            parts[name].append(line)
    members = _members(textwrap.dedent("\n".join(parts.get("Errors", [])[1:])))
    classes = [member for member in members if PROBLEM.match(member)]
    paths = [member for member in members if member.startswith("Expected a dot import path string")]
    if classes:
        return read(classes[0], so_far)
    if paths:
        return replace(
            so_far, reason=f"there is no class {paths[0].rpartition(': ')[2]}; expected the name of one of Lightning's, or a class path"
        )
    types = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", " ".join(parts.get("Subtypes", [""]))).strip("[]")
    return replace(so_far, reason=f"expected one of {types}, got {' '.join(' '.join(parts.get('Given value', [''])).split())}")


def _members(text: str) -> list[str]:
    """The items of a list whose dashes are in the first column, without the dashes."""
    return [item.strip("\n") for item in re.split(r"^- ", text, flags=re.MULTILINE) if item.strip()]


def parameters_of(path: str) -> list[str]:
    """The names of a class's arguments; none if it cannot be imported."""
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return []
    return [one for one, kind in inspect.signature(found).parameters.items() if kind.kind not in (kind.VAR_POSITIONAL, kind.VAR_KEYWORD)]
