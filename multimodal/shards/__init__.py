"""Shards: tars of pairs that webdataset and open_clip also read, with an index and columns beside them. numpy and pyarrow, no torch."""

from multimodal.shards.columns import Column, ColumnWriter, column_names, column_path
from multimodal.shards.joined import JoinedShards, Sets, open_sets
from multimodal.shards.leave_out import read_leave_out, write_leave_out
from multimodal.shards.ledger import Ledger
from multimodal.shards.reader import BrokenPair, ShardSet
from multimodal.shards.remote import RemoteShards, SetPath, open_set
from multimodal.shards.split import Part, Split
from multimodal.shards.tars import Shard, Unreadable
from multimodal.shards.views import Pairs
from multimodal.shards.writer import ShardWriter, finish, write_shard

__all__ = [
    "BrokenPair",
    "Column",
    "ColumnWriter",
    "JoinedShards",
    "Ledger",
    "Pairs",
    "Part",
    "RemoteShards",
    "SetPath",
    "Sets",
    "Shard",
    "ShardSet",
    "ShardWriter",
    "Split",
    "Unreadable",
    "column_names",
    "column_path",
    "finish",
    "open_set",
    "open_sets",
    "read_leave_out",
    "write_leave_out",
    "write_shard",
]
