"""A corpus of three subjects whose words never meet, small enough to fit in a moment."""

from __future__ import annotations

import numpy as np
import pytest

BLOCKS = (
    "dog puppy leash kennel bark paw tail fur".split(),
    "beach wave sand surf towel shell coast tide".split(),
    "violin cello orchestra concert melody chord tempo opera".split(),
)


@pytest.fixture(scope="session")
def blocks() -> tuple[list[str], ...]:
    return BLOCKS


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """300 texts of 3 to 12 words, each of one subject."""
    random = np.random.default_rng(0)
    return [" ".join(random.choice(BLOCKS[n % 3], random.integers(3, 13))) for n in range(300)]
