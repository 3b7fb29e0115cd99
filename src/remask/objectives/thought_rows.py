"""Rows whose free places are a thought, as a network of vectors reads them: a vector for each token, or a codec's.

A table gives each free place the vector of its token, where it stands. A codec of responses gives S vectors for all of
a response, of any length, which stand behind the question: the response's own places are not there for the network.

Shape letters: B rows, L places of a row, N places that a network reads, T free places of all rows, M vectors of all
thoughts, S vectors of a codec, R tokens that it holds, W features of a vector, V vocabulary.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from remask.objectives.base import scatter_positions
from remask.objectives.responses import Responses


@runtime_checkable
class TokenVectors(Protocol):
    """A vector for every token."""

    @property
    def width(self) -> int:
        """W."""
        ...

    def vectors(self) -> Float[Tensor, "V W"]:
        """All of them, float32; a coordinate has mean square 1."""
        ...


@runtime_checkable
class ResponseVectors(Protocol):
    """A few vectors for a whole response, with a coordinate's mean square about 1."""

    length: int
    """R."""
    eos_id: int
    """What fills up short responses."""
    start: int
    """The place, as attention counts, of the first vector; those of a question are less."""

    @property
    def width(self) -> int:
        """W."""
        ...

    @property
    def count(self) -> int:
        """S."""
        ...

    def encode(self, ids: Int[Tensor, "B R"]) -> Float[Tensor, "B S W"]:
        """The vectors of responses, without a gradient."""
        ...

    def decode(self, vectors: Float[Tensor, "B S W"]) -> Float[Tensor, "B R V"]:
        """Logits of a response's tokens from its vectors."""
        ...


@dataclass(frozen=True, kw_only=True)
class ThoughtRows(ABC):
    """What a thought of some rows is made of, and how it stands before a network.

    Vectors of all thoughts [M W] are those at the true places of `noisy`, in row-major order; tokens of all responses
    [T] those at the true places of `free`.

    Attributes:
        ids: tokens [B L].
        free: the places of the response [B L].
        segments: 0 for padding [B L].
    """

    ids: Int[Tensor, "B L"]
    free: Bool[Tensor, "B L"]
    segments: Int[Tensor, "B L"]

    @property
    def tokens(self) -> Int[Tensor, "T"]:
        """Those of the responses."""
        return self.ids[self.free]

    @property
    @abstractmethod
    def asked(self) -> Mapping[str, Tensor]:
        """The rows as keywords of a network: `ids`, `noisy`, `segments`, `positions`, maybe `places`, all [B N]."""

    @property
    def noisy(self) -> Bool[Tensor, "B N"]:
        """Where the thought stands."""
        return self.asked["noisy"]

    @property
    @abstractmethod
    def drawn(self) -> tuple[int, int]:
        """Noise a row: so many vectors, of so many features."""

    @property
    @abstractmethod
    def clean(self) -> Float[Tensor, "B N W"]:
        """x, of no meaning where no thought stands."""

    @abstractmethod
    def placed(self, drawn: Float[Tensor, "B K W"]) -> Float[Tensor, "B N W"]:
        """Noise that was drawn, where the thought stands."""

    @abstractmethod
    def moved(self, drawn: Float[Tensor, "B K W"], to: "ThoughtRows") -> Float[Tensor, "B J W"]:
        """Noise that was drawn for these rows as it would be drawn for other ones with the same responses."""

    @abstractmethod
    def held(self, values: Float[Tensor, "M"]) -> Float[Tensor, "B L"]:
        """Values of vectors in the free places of their rows; each row's mean is that over its vectors."""

    @abstractmethod
    def mean(self, log_p: Float[Tensor, "T V"]) -> Float[Tensor, "M W"]:
        """The mean vector under log-probabilities of tokens."""

    @abstractmethod
    def named(self, clean: Float[Tensor, "M W"]) -> Float[Tensor, "T V"]:
        """Logits of the tokens that vectors stand for."""

    @abstractmethod
    def read_off(
        self, z: Float[Tensor, "M W"], *, alpha: Float[Tensor, "M"], sigma: Float[Tensor, "M"]
    ) -> Float[Tensor, "T V"]:
        """Logits of the tokens that noisy vectors show to who knows neither question nor neighbours of the thought."""

    def in_places(self, values: Float[Tensor, "M W"]) -> Float[Tensor, "B N W"]:
        """Vectors where the thought stands, zero elsewhere."""
        full = values.new_zeros(*self.noisy.shape, values.shape[-1])
        full[self.noisy] = values
        return full

    def of_tokens(self, values: Float[Tensor, "T"]) -> Float[Tensor, "B L"]:
        """Values of tokens in their places; zero elsewhere."""
        return scatter_positions(values, self.free)


@dataclass(frozen=True, kw_only=True)
class TableRows(ThoughtRows):
    """A vector for each token, in its place.

    Attributes:
        vectors: of all tokens [V W].
    """

    vectors: Float[Tensor, "V W"]

    @property
    def asked(self) -> Mapping[str, Tensor]:
        """The rows as they are."""
        return {"ids": self.ids, "noisy": self.free, "segments": self.segments, "positions": self.free}

    @property
    def drawn(self) -> tuple[int, int]:
        """A vector for each place."""
        return self.ids.shape[1], self.vectors.shape[1]

    @property
    def clean(self) -> Float[Tensor, "B L W"]:
        """The vectors of all tokens."""
        return functional.embedding(self.ids, self.vectors)

    def placed(self, drawn: Float[Tensor, "B L W"]) -> Float[Tensor, "B L W"]:
        """As it was drawn."""
        return drawn.to(self.vectors.dtype)

    def moved(self, drawn: Float[Tensor, "B L W"], to: ThoughtRows) -> Float[Tensor, "B J W"]:
        """Each token keeps the noise of its vector."""
        there = drawn.new_zeros(*to.ids.shape, drawn.shape[-1])
        there[to.free] = drawn[self.free]
        return there

    def held(self, values: Float[Tensor, "M"]) -> Float[Tensor, "B L"]:
        """Each in its own place."""
        return scatter_positions(values, self.free)

    def mean(self, log_p: Float[Tensor, "T V"]) -> Float[Tensor, "M W"]:
        """Σ p E."""
        return log_p.exp() @ self.vectors.to(log_p.dtype)

    def named(self, clean: Float[Tensor, "M W"]) -> Float[Tensor, "T V"]:
        """By distance: −½ ‖x̂ − E‖², but for ‖x̂‖², which is the same for all tokens."""
        table = self.vectors.to(clean.dtype)
        return clean @ table.T - 0.5 * table.square().sum(-1)

    def read_off(
        self, z: Float[Tensor, "M W"], *, alpha: Float[Tensor, "M"], sigma: Float[Tensor, "M"]
    ) -> Float[Tensor, "T V"]:
        """By the distance of z/α, without its pole: −½ ‖z − α E‖²."""
        del sigma
        table = self.vectors.to(z.dtype)
        return alpha[:, None] * (z @ table.T) - 0.5 * alpha[:, None].square() * table.square().sum(-1)


@dataclass(frozen=True, kw_only=True)
class CodecRows(ThoughtRows):
    """S vectors for all of a response, behind the question.

    Attributes:
        codec: text ⇄ vectors.
    """

    codec: ResponseVectors

    @cached_property
    def responses(self) -> Responses:
        """The responses as the codec reads them."""
        return Responses(ids=self.ids, free=self.free, length=self.codec.length, eos_id=self.codec.eos_id)

    @cached_property
    def asked(self) -> Mapping[str, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The questions, as far as the longest of them reaches, and the vectors' places behind them."""
        given = ~self.free & (self.segments > 0)
        reach = int((given.any(0) * torch.arange(1, given.shape[1] + 1, device=given.device)).max())
        count = self.codec.count
        noisy = functional.pad(torch.zeros_like(given[:, :reach]), (0, count), value=True)
        behind = self.codec.start + torch.arange(count, device=given.device)
        return {
            "ids": functional.pad(self.ids[:, :reach], (0, count), value=self.codec.eos_id),
            "noisy": noisy,
            "segments": functional.pad(given[:, :reach].long(), (0, count), value=1),
            "positions": noisy,
            "places": torch.cat([torch.arange(reach, device=given.device), behind]).expand(len(given), -1),
        }

    @property
    def drawn(self) -> tuple[int, int]:
        """The codec's vectors."""
        return self.codec.count, self.codec.width

    @cached_property
    def clean(self) -> Float[Tensor, "B N W"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The responses' vectors behind zeros."""
        return self.placed(self.codec.encode(self.responses.tokens))

    def placed(self, drawn: Float[Tensor, "B S W"]) -> Float[Tensor, "B N W"]:
        """Zeros at the question."""
        return functional.pad(drawn, (0, 0, self.noisy.shape[1] - self.codec.count, 0))

    def moved(self, drawn: Float[Tensor, "B S W"], to: ThoughtRows) -> Float[Tensor, "B S W"]:
        """As it was drawn: a response's vectors stand apart from its question."""
        del to
        return drawn

    def held(self, values: Float[Tensor, "M"]) -> Float[Tensor, "B L"]:
        """Each row's mean in all of its free places: a row counts by its tokens."""
        means = values.view(len(self.ids), -1).mean(-1)
        return means[:, None] * self.free.to(values.dtype)

    def mean(self, log_p: Float[Tensor, "T V"]) -> Float[Tensor, "M W"]:
        """There is none."""
        raise AssertionError("the schema refuses tokens as what is said of a codec's vectors")

    def named(self, clean: Float[Tensor, "M W"]) -> Float[Tensor, "T V"]:
        """By the codec's decoder."""
        return self.responses.in_places(self.codec.decode(clean.view(len(self.ids), *self.drawn)))

    def read_off(
        self, z: Float[Tensor, "M W"], *, alpha: Float[Tensor, "M"], sigma: Float[Tensor, "M"]
    ) -> Float[Tensor, "T V"]:
        """The codec's decoder of the best multiple of z (Wiener)."""
        factor = alpha / (alpha.square() + sigma.square())
        return self.named(factor[:, None] * z)


def codec_of(network: object) -> TokenVectors | ResponseVectors:
    """The codec of a network; it may be wrapped."""
    codec = getattr(getattr(network, "module", network), "codec", None)
    assert isinstance(codec, TokenVectors | ResponseVectors), "the schema refuses a network without vectors"
    return codec


def rows_of(
    network: object, *, ids: Int[Tensor, "B L"], free: Bool[Tensor, "B L"], segments: Int[Tensor, "B L"]
) -> ThoughtRows:
    """Rows as the codec of a network has them."""
    codec, given = codec_of(network), {"ids": ids, "free": free, "segments": segments}
    if isinstance(codec, TokenVectors):
        return TableRows(vectors=codec.vectors(), **given)
    return CodecRows(codec=codec, **given)
