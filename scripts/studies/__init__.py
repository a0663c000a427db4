"""Studies of `scripts/reproduce.py`, one file each."""
