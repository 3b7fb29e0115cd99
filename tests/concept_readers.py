"""Rows and networks for objectives of concepts, small enough to follow by hand.

Ids 0 to 5 are tokens, 6 is the mask.
"""

from dataclasses import dataclass, field
from typing import Any

import torch

from remask.config.build.concepts import build_concept_network
from remask.config.schema import ConceptSpec
from remask.data.batch import Batch
from remask.networks.concepts import Concepts
from remask.processes import Masking
from remask.schedules import Linear
from remask.tokenizers import CharacterTokenizer

V, MASK = 7, 6
PROCESS = Masking(schedule=Linear(), vocab_size=V, mask_id=MASK)


def reader(*, seed: int = 1, length: int = 12, **changes: Any):
    """A concept network of width 16 whose gates, closed at first, stand open: every part has a say."""
    spec = ConceptSpec(**{"width": 16, "heads": 2, "layers": 1, "concepts": 4, "decoder_layers": 1, **changes})
    network = build_concept_network(spec, CharacterTokenizer("abcde"), length=length, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network


def rows(*, count: int = 4, length: int = 8, given: int = 0, lengths: tuple[int, ...] = (), seed: int = 0) -> Batch:
    """Random rows of one text each, the first `given` tokens of which are no targets."""
    ids = torch.randint(0, MASK, (count, length), generator=torch.Generator().manual_seed(seed))
    places = torch.arange(length)
    segments = (places < torch.tensor(lengths or (length,) * count)[:, None]).long()
    return Batch(
        ids=ids,
        segments=segments,
        targets=(segments > 0) & (places >= given),
        byte_lengths=torch.ones_like(ids),
        rows=torch.arange(count),
        global_size=count,
    )


@dataclass
class Spy:
    """A reader that keeps what it is told and says nothing: equal logits, and the concepts that it is given."""

    vectors: torch.Tensor | None = None
    calls: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, z, t, *, segments, positions, source=None, source_real=None, kept=None, hear=None):
        told = {"z": z, "t": t, "segments": segments, "positions": positions}
        self.calls.append({**told, "source": source, "real": source_real, "kept": kept})
        vectors = torch.zeros(len(z), 2, 3) if self.vectors is None else self.vectors
        if hear is not None:
            hear(Concepts(vectors=vectors, real=torch.ones(vectors.shape[:2], dtype=torch.bool)))
        return torch.zeros(int(positions.sum()), V)

    @property
    def last(self) -> dict[str, Any]:
        """What the last call was told."""
        return self.calls[-1]

    def sources(self) -> list[list[int]]:
        """The real source tokens of each row of the last call."""
        return [ids[real].tolist() for ids, real in zip(self.last["source"], self.last["real"], strict=True)]
