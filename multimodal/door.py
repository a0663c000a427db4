"""One door per task: a verb is a typed function in the room that owns it; the door finds it, runs it and turns errors into messages.

    run({"search": ("multimodal.search.query:search_verb", "find pictures in words")}, prog="multimodal", argv=["search", "--help"])

Only the module of the verb that runs is imported, so listing the verbs costs nothing and searching never pays for training.
`multimodal.arguments` says how a signature becomes a command line. A function whose only parameter is `args` reads its command line itself.
What a verb returns is not looked at: it prints what it has to say, and raises InputError where it cannot do what was asked.
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

from multimodal.arguments import near_names, parse
from multimodal.errors import InputError
from multimodal.printable import printable

Verb = tuple[str, str]
"""("package.module:function", "one line of help")"""
Verbs = Mapping[str, "Verb | Verbs"]
"""Name -> verb, or name -> the verbs under that name (`shards` -> `verify`, `ls`, ...)."""

EXIT_INPUT = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells count
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE
REMEDIES = {
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some space, or have your quota raised,",
    errno.EFBIG: "Raise the limit on the size of a file (ulimit -f)",
}
"""What a person can do about an operating system's error."""


def run(verbs: Verbs, prog: str, argv: Sequence[str] | None = None) -> int:
    """Run the verb that the arguments name and return the exit status: 0, 2 where what a person gave us is wrong, 130 when interrupted.

    argv: the arguments after the program's name; None takes the process's own.
    InputError and OSError become one line `error: ...` on stderr. Anything else is a bug of ours and keeps its traceback.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file name that is no UTF-8 is printed with its bytes written out
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        dispatch(verbs, prog, list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except InputError as error:
        return _fail(str(error))
    except BrokenPipeError:  # the reader has seen enough (`... | head`); stdout goes elsewhere, or the last flush complains
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return EXIT_BROKEN_PIPE
    except OSError as error:
        return _fail(describe(error))
    except KeyboardInterrupt:
        print("\nstopped; what was finished is kept, run the same command again to go on", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def load(path: str) -> Callable[..., Any]:
    """The function at "package.module:function"; InputError where there is none."""
    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if module_name == missing or module_name.startswith(f"{missing}."):
            raise InputError(f"{path}: there is no module {missing}") from None
        raise InputError(f"{path} needs the package {missing}, which is not installed. README.md says which extra brings it") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise InputError(f"{path}: the module {module_name} has no function {name!r}")
    return function


def describe(error: OSError) -> str:
    """An operating system's error as a person reads it: where, what, and what to do where that is plain."""
    what = error.strerror or str(error)
    where = " -> ".join(os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes))
    remedy = REMEDIES.get(error.errno or 0)
    told = f"{where}: {what}" if where else what
    return f"{told}. {remedy} and run the same command again" if remedy else told


def dispatch(verbs: Verbs, prog: str, arguments: list[str]) -> None:
    """Run the verb that the arguments name, and let what it raises pass: `run` without its messages and statuses."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help(verbs, prog))
        if not arguments:
            raise InputError(f"{prog}: say what to do, with one of the verbs above")
        return
    name, rest = arguments[0], arguments[1:]
    if name not in verbs:
        raise InputError(f"{prog}: there is no verb {name!r}. {near_names(name, verbs)}")
    verb = verbs[name]
    if isinstance(verb, Mapping):
        dispatch(verb, f"{prog} {name}", rest)
        return
    function = load(verb[0])
    if list(inspect.signature(function).parameters) == ["args"]:
        function(rest)
        return
    try:
        [settings] = parse(f"{prog} {name}", rest, function)
    except SystemExit:  # the help was asked for, and printed
        return
    function(**settings)


def _help(verbs: Verbs, prog: str) -> str:
    rows = list(_rows(verbs))
    width = max(len(name) for name, _ in rows)
    lines = [f"  {name:<{width}}  {text}" for name, text in rows]
    return "\n".join([f"usage: {prog} <verb> ...", "", *lines, "", f"What a verb takes: {prog} <verb> --help"])


def _rows(verbs: Verbs, prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, verb in verbs.items():
        if isinstance(verb, Mapping):
            yield from _rows(verb, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", verb[1]


def _fail(message: str) -> int:
    print(f"error: {printable(message)}", file=sys.stderr)
    return EXIT_INPUT
