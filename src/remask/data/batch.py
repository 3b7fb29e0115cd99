"""The one thing that travels from text to loss.

Shape letters: B examples on this process, L tokens a row.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Clean token rows; noise is never added here.

    Attributes:
        ids: clean tokens, int64 [B L].
        segments: the document of each position within its row, from 1; 0 marks padding. int64 [B L].
        targets: positions whose likelihood counts (never padding), bool [B L].
        byte_lengths: UTF-8 bytes of text that each token stands for (0 for end of text), int64 [B L].
        rows: the place of each example in the global batch of this step, int64 [B].
        global_size: the number of examples in that global batch, over all processes and micro-batches.
    """

    ids: Int[Tensor, "B L"]
    segments: Int[Tensor, "B L"]
    targets: Bool[Tensor, "B L"]
    byte_lengths: Int[Tensor, "B L"]
    rows: Int[Tensor, "B"]
    global_size: int

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch with every tensor on `device`."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)})

    def __len__(self) -> int:
        return self.ids.shape[0]

    def parts(self, most: int) -> Iterator["Batch"]:
        """The same examples, at most so many at a time; each keeps its place in the global batch, and so its noise."""
        for start in range(0, len(self), most):
            chosen = slice(start, start + most)
            values = {f.name: getattr(self, f.name) for f in fields(self)}
            yield replace(self, **{k: value[chosen] for k, value in values.items() if isinstance(value, Tensor)})

    def __reduce__(self) -> tuple[Callable[..., "Batch"], tuple[Mapping[str, Any]]]:
        """Between processes a batch travels as arrays: torch would open a shared file for each tensor."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return _received, ({k: v.cpu().numpy() if isinstance(v, Tensor) else v for k, v in values.items()},)


def _received(values: Mapping[str, Any]) -> Batch:
    tensors = {name: torch.from_numpy(v) for name, v in values.items() if isinstance(v, np.ndarray)}
    return Batch(**tensors, global_size=values["global_size"])
