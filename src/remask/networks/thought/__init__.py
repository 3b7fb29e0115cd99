"""A network that denoises a thought, a row of vectors behind a question, with the body of a language model."""

from remask.networks.thought.codecs import FrozenCodec, LearnedTable, OwnTable, TableCodec
from remask.networks.thought.network import ThoughtNetwork
from remask.networks.thought.trunks import PretrainedTrunk, ScratchTrunk, Trunk

__all__ = [
    "FrozenCodec",
    "LearnedTable",
    "OwnTable",
    "PretrainedTrunk",
    "ScratchTrunk",
    "TableCodec",
    "ThoughtNetwork",
    "Trunk",
]
