"""Data inside installed packages, found without importing them.

package_folder("wordllama")     # .../site-packages/wordllama
"""

from __future__ import annotations

import importlib.util
from importlib import metadata
from pathlib import Path

from multimodal.errors import InputError


def package_folder(package: str) -> Path:
    """The folder of an installed distribution's module of the same name (dashes as underscores). InputError if it is not installed."""
    module = package.replace("-", "_")
    # For a name with a dot, find_spec would import the parent package.
    spec = importlib.util.find_spec(module) if module.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"the package {package} is not installed, but its data is needed. Run: pip install {package}")
    return Path(spec.submodule_search_locations[0])


def package_version(package: str) -> str:
    """The version of an installed distribution."""
    return metadata.version(package)
