"""Imports torchvision, or says in one line why it does not load. Every room that loads timm or Lightning imports this first.

    import multimodal.machine.torch_pair  # noqa: F401

torchvision's compiled operators fit one build of torch. With another build its import fails deep inside timm and Lightning with
"operator torchvision::nms does not exist", which does not say that the two packages come from different places.
"""

from __future__ import annotations

from importlib.metadata import version

from multimodal.errors import InputError

try:
    import torchvision  # noqa: F401
except ModuleNotFoundError:
    raise  # not installed at all: Python's own message names it
except (ImportError, OSError, RuntimeError) as error:
    if isinstance(error, OSError) and error.errno is not None:  # a problem of the machine (a full disk); a mismatch has no errno
        raise
    raise InputError(
        f"torch {version('torch')} and torchvision {version('torchvision')} are not compatible ({str(error).splitlines()[0]}). "
        "Install both from one place: both from PyPI, or both from PyTorch's CPU index (see Install in README.md)"
    ) from error
