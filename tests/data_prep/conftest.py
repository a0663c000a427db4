from __future__ import annotations

import sys
from pathlib import Path

# Tasks and sources of the tests run in processes that import them by name; those take over this process's path.
sys.path.insert(0, str(Path(__file__).parent))
