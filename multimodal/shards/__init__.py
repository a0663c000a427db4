"""Shards: tars of pairs that webdataset and open_clip read too, with an index and columns beside them. numpy and pyarrow, no torch."""

from multimodal.shards.columns import Column, ColumnWriter, column_names, column_path
from multimodal.shards.joined import JoinedShards, Sets, open_sets
from multimodal.shards.leave_out import read_leave_out, write_leave_out
from multimodal.shards.ledger import Ledger
from multimodal.shards.reader import BrokenPair, Shard, ShardSet, Unreadable
from multimodal.shards.remote import RemoteShards, SetPath, open_set
from multimodal.shards.split import Part, Split
from multimodal.shards.writer import ShardWriter, finish, write_shard

__all__ = [
    "BrokenPair",
    "Column",
    "ColumnWriter",
    "JoinedShards",
    "Ledger",
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
