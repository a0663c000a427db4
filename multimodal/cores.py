"""Which of the machine's cores this process may use: fewer than there are under a scheduler, in a container, or where it was pinned."""

from __future__ import annotations

import os


def usable_cores() -> list[int]:
    """Their numbers, ascending; where the system does not say (macOS, Windows), as many as there are."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
