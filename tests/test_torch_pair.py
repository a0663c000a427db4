"""What a mixed pair of torch and torchvision is told: a stand-in torchvision fails as the real one does beside another build of torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("room", ["multimodal.machine.torch_pair", "multimodal.towers", "multimodal.training"])
def test_a_mixed_pair_is_named_in_one_line(tmp_path: Path, room: str) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    done = subprocess.run(
        [sys.executable, "-c", f"import {room}"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode != 0
    last_line = done.stderr.splitlines()[-1]
    assert "InputError: torch " in last_line
    assert "are not compatible (operator torchvision::nms does not exist)" in last_line
    assert "both from PyPI" in last_line
