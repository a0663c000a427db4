"""Shards: tars of pairs that webdataset and open_clip read too, with an index and columns beside them. numpy and pyarrow, no torch."""

from multimodal.shards.ledger import Ledger

__all__ = ["Ledger"]
