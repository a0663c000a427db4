"""One door per task: a verb is a typed function in the room that owns it; the door finds it, runs it and turns errors into messages.

    run({"search": ("multimodal.search.door:search_verb", "find pictures in words")}, prog="multimodal", argv=["search", "--help"])

Only the module of the verb that runs is imported, so listing the verbs costs nothing and searching never pays for training.
`multimodal.doors.arguments` says how a signature becomes a command line. A function whose only parameter is `args` reads its own.
A verb's return value is ignored: it prints its results, and raises InputError if it cannot do what was asked.
"""

from __future__ import annotations

import errno
import importlib
import inspect
import io
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from multimodal.doors.arguments import parse
from multimodal.doors.printable import printable
from multimodal.errors import InputError, near_names, not_importable

Verb = tuple[str, str]
"""("package.module:function", "one line of help")"""
Verbs = Mapping[str, "Verb | Verbs"]
"""Name -> verb, or name -> the verbs under that name (`shards` -> `verify`, `ls`, ...)."""
OWN = "package.module:function"
"""The name of a verb that stands for any function of the user's: it gets the function's path before its other arguments."""


class Family(dict[str, Verb]):
    """Verbs of one job that differ in one function, whose settings become options beside the job's own.

    by: "package.module:function" that runs each of them: it takes the verb's name, that function, and the command's arguments.
    A function of the user's own is a verb too, named by its path: `data-prep fit-text-space mypackage.module:fit_mine`.
    """

    def __init__(self, by: str, verbs: Mapping[str, Verb]) -> None:
        super().__init__(verbs)
        self.by = by


EXIT_INPUT = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells count
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE
REMEDIES = {
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some space, or ask for a larger quota,",
    errno.EFBIG: "Raise the limit on file sizes (ulimit -f)",
}
"""What a user can do about an error of the operating system."""


def run(verbs: Verbs, prog: str, argv: Sequence[str] | None = None, instead: Mapping[str, str] = {}) -> int:
    """Run the verb that the arguments name and return the exit status: 0, 2 if the user's input is wrong, 130 if interrupted.

    argv: the arguments after the program's name; None takes those of the process. instead: verbs that people know from elsewhere -> what
    does it here.
    InputError and OSError become one line `error: ...` on stderr. Anything else is a bug of ours and keeps its traceback.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file name that is not UTF-8 is printed with escaped bytes
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        dispatch(verbs, prog, list(sys.argv[1:] if argv is None else argv), instead)
        sys.stdout.flush()
    except InputError as error:
        return _fail(str(error))
    except BrokenPipeError:  # the reader has seen enough (`... | head`); stdout goes elsewhere, or the last flush complains
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return EXIT_BROKEN_PIPE
    except OSError as error:
        return _fail(describe(error))
    except KeyboardInterrupt:
        print("\nstopped; finished work is kept, run the same command again to continue", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def load(path: str) -> Callable[..., Any]:
    """The function at "package.module:function"; InputError if there is none."""
    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if module_name == missing or module_name.startswith(f"{missing}."):
            raise InputError(f"{path}: there is no module {missing}. {not_importable(missing)}") from None
        raise InputError(f"{path} needs the package {missing}, which is not installed. README.md says which extra brings it") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise InputError(f"{path}: the module {module_name} has no function {name!r}")
    return function


def describe(error: OSError) -> str:
    """An error of the operating system in readable words: where, what, and what to do if that is known."""
    what = error.strerror or str(error)
    where = " -> ".join(os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes))
    remedy = REMEDIES.get(error.errno or 0)
    message = f"{where}: {what}" if where else what
    return f"{message}. {remedy} and run the same command again" if remedy else message


def dispatch(verbs: Verbs, prog: str, arguments: list[str], instead: Mapping[str, str] = {}) -> None:
    """Run the verb that the arguments name and let exceptions pass: `run` without its messages and exit statuses."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help(verbs, prog))
        if not arguments:
            raise InputError(f"{prog}: a verb is missing: give one of those above")
        return
    name, rest = arguments[0], arguments[1:]
    is_own = isinstance(verbs, Family) and ":" in name
    if name not in verbs and OWN in verbs and ":" in name:
        name, rest = OWN, [name, *rest]
    if name not in verbs and name in instead:
        raise InputError(f"{prog}: there is no verb {name!r}. Use {instead[name]}")
    if name not in verbs and not is_own:
        raise InputError(f"{prog}: there is no verb {name!r}. {near_names(name, verbs)}")
    verb = (name, "a function of the user's") if is_own else verbs[name]
    if isinstance(verb, Mapping):
        dispatch(verb, f"{prog} {name}", rest)
        return
    function = load(verb[0])
    if isinstance(verbs, Family):
        load(verbs.by)(name, function, rest)
        return
    if list(inspect.signature(function).parameters) == ["args"]:
        function(rest)
        return
    try:
        [settings] = parse(f"{prog} {name}", rest, function)
    except SystemExit:  # help was requested, and printed
        return
    function(**settings)


def _help(verbs: Verbs, prog: str) -> str:
    rows = list(_rows(verbs))
    width = max(len(name) for name, _ in rows)
    lines = [f"  {name:<{width}}  {text}" for name, text in rows]
    own = [f"Name a function of your own by its path: {prog} package.module:function"] if isinstance(verbs, Family) else []
    return "\n".join([f"usage: {prog} <verb> ...", "", *lines, "", *own, f"Options of a verb: {prog} <verb> --help"])


def _rows(verbs: Verbs, prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, verb in verbs.items():
        if isinstance(verb, Mapping):
            yield from _rows(verb, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", verb[1]


def _fail(message: str) -> int:
    print(f"error: {printable(message)}", file=sys.stderr)
    return EXIT_INPUT
