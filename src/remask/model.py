"""A model: a network, the noise it was trained against, the objective and the tokenizer, as one thing to use.

Shape letters: B batch, L length, V vocabulary, M positions at which logits are wanted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from remask.continuation import Continuation, check_given
from remask.gaussian import GaussianProcess
from remask.objectives.base import Objective, SourceNetwork
from remask.processes import CategoricalProcess
from remask.tokenizers import Tokenizer

P = TypeVar("P", bound=CategoricalProcess | GaussianProcess | None)


@dataclass(frozen=True, kw_only=True)
class Model(Generic[P]):
    """What `remask sample` and `remask evaluate` load.

    Attributes:
        network: emits leave-one-out logits.
        process: the noise that a sampler undoes, on tokens or on their vectors; None for an autoregressive model.
        objective: measures the network's likelihood.
        tokenizer: text ⇄ ids.
        length: the row length in tokens that the network was trained on.
    """

    network: nn.Module
    process: P
    objective: Objective
    tokenizer: Tokenizer
    length: int

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.network.parameters()).device

    @property
    def mask_id(self) -> int:
        """The id that clean text never holds."""
        return self.tokenizer.mask_id

    @property
    def parameters(self) -> int:
        """The number of weights, shared ones counted once."""
        return sum(weights_in(parameter) for parameter in self.network.parameters())

    def logits(
        self, z: Int[Tensor, "B L"], t: Float[Tensor, "B"], *, positions: Bool[Tensor, "B L"]
    ) -> Float[Tensor, "M V"]:
        """Logits at the true places of `positions`."""
        return self.network(z, t, segments=self.segments(z), positions=positions)

    def segments(self, z: Int[Tensor, "B L"]) -> Int[Tensor, "B L"]:
        """The document of each place, from 1.

        A denoiser takes each row for one document, since only noise says yet where one could end; an autoregressive
        model begins a new one after each end of text, as its training rows do.
        """
        segments = torch.ones_like(z)
        if self.process is None:
            segments[:, 1:] += (z[:, :-1] == self.tokenizer.eos_id).cumsum(-1)
        return segments

    def under(self, fixed: Bool[Tensor, "B L"]) -> "Model[P] | Continuation":
        """The model of rows of which some places are given, as a sampler sees it: itself, or one that reads them once.

        Args:
            fixed: given places.

        Raises:
            UserError: the network goes on from given tokens only, and free places stand before given ones.
        """
        if not isinstance(self.process, CategoricalProcess) or not isinstance(self.network, SourceNetwork):
            return self
        check_given(fixed)
        return Continuation(process=self.process, network=self.network, fixed=fixed)

    @property
    def reader(self) -> "Reader | None":
        """Reads rows from left to right with a cache; None where later tokens change what earlier places see."""
        network = self.network
        if not isinstance(network, CachedNetwork) or network.block_length is None:
            return None
        return Reader(network=network, segments=self.segments, block_length=network.block_length)


@runtime_checkable
class CachedNetwork(Protocol):
    """A network that can read on where it stopped."""

    @property
    def block_length(self) -> int | None:
        """Tokens that see each other while later ones are seen by none; None where all see all."""
        ...

    def open_cache(self, capacity: int) -> Any:
        """An empty cache for rows of at most `capacity` places."""
        ...

    def resume(
        self,
        z: Int[Tensor, "B N"],
        t: Float[Tensor, "B"],
        *,
        segments: Int[Tensor, "B N"],
        positions: Bool[Tensor, "B N"],
        cache: Any,
        known: int,
    ) -> Float[Tensor, "M V"]:
        """Logits of a row's first N places without computing those in the cache, which is extended.

        It keeps every place whose state the first `known` tokens settle; `positions` lie behind what it held.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Reads rows from left to right.

    Attributes:
        network: causal, or causal between blocks; it reads no time.
        segments: tokens [B L] → the document of each place [B L].
        block_length: tokens that the network reads at once.
    """

    network: CachedNetwork
    segments: Callable[[Tensor], Tensor]
    block_length: int

    def begin(self, count: int, length: int, *, device: torch.device) -> "CachedReading":
        """The start of `count` rows of at most `length` tokens."""
        return CachedReading(
            reader=self,
            cache=self.network.open_cache(length),
            tokens=torch.zeros(count, 0, dtype=torch.int64, device=device),
        )


@dataclass(kw_only=True)
class CachedReading:
    """Rows read so far, in lockstep.

    Attributes:
        reader: the model.
        cache: the states of places that were computed and cannot change.
        tokens: read so far [B P].
    """

    reader: Reader
    cache: Any
    tokens: Int[Tensor, "B P"]

    def extend(self, tokens: Int[Tensor, "B K"]) -> None:
        """Reads on; the network sees these tokens with the next call of `logits`, which costs no call of its own."""
        self.tokens = torch.cat([self.tokens, tokens], 1)

    def logits(
        self, z: Int[Tensor, "B K"], t: Float[Tensor, "B"], *, positions: Bool[Tensor, "B K"]
    ) -> Float[Tensor, "M V"]:
        """Logits at the true places of `positions` among the K places that come next and hold `z`; reads nothing."""
        read = self.tokens.shape[1]
        whole = torch.cat([self.tokens, z], 1)
        return self.reader.network.resume(
            whole,
            torch.zeros_like(t),
            segments=self.reader.segments(whole),
            positions=functional.pad(positions, (read, 0), value=False),
            cache=self.cache,
            known=read,
        )


def weights_in(parameter: Tensor) -> int:
    """How many weights a parameter stands for: one in 4 bits packs two into each byte."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else state.shape.numel()
