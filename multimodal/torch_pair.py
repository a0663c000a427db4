"""torchvision, or one line that says why it does not load: imported first by every room that loads timm or Lightning.

    import multimodal.torch_pair  # noqa: F401

torchvision's compiled operators fit one build of torch. Beside another one its import fails deep inside timm and Lightning with
"operator torchvision::nms does not exist", which tells nobody that the two packages come from different places.
"""

from __future__ import annotations

from importlib.metadata import version

from multimodal.errors import InputError

try:
    import torchvision  # noqa: F401
except ModuleNotFoundError:
    raise  # not installed at all: Python's own message names it
except (ImportError, OSError, RuntimeError) as error:
    if isinstance(error, OSError) and error.errno is not None:  # the machine's trouble (a full disk), not the pair's: that has no number
        raise
    raise InputError(
        f"torch {version('torch')} and torchvision {version('torchvision')} do not belong together ({str(error).splitlines()[0]}). "
        "Install both from one place: both from PyPI, or both from PyTorch's CPU index (see Install in README.md)"
    ) from error
