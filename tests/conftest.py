from __future__ import annotations

import os
from pathlib import Path

import pytest

DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets that lies outside the repository; tests that ask for it skip where it is absent."""
    data = Path(os.environ.get("MULTIMODAL_DATA", DEFAULT_DATA))
    if not data.is_dir():
        pytest.skip(f"real data absent: {data} is no folder (set MULTIMODAL_DATA to where it lies)")
    return data
