"""The one exception a door turns into a message: what is wrong, where, and what to do.

raise InputError("captions.tsv line 7: 2 fields where 3 are wanted. Columns are: file, split, caption")
"""

from __future__ import annotations


class InputError(ValueError):
    """Something a person gave us is wrong. Doors print it without a traceback and exit with 2.

    Anything else that is raised is a bug of ours and keeps its traceback.
    """
