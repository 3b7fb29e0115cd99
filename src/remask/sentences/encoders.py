"""Sentences to vectors, whatever the model: concept vectors where a network has them, hidden states else.

Shape letters: n sentences, B sentences read at once, N tokens of the longest, C vectors of a sentence, D width,
M real tokens of a batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from remask.continuation import SourceNetwork
from remask.errors import UserError
from remask.judgement.readers import encodable, projection_of
from remask.tokenizers import Tokenizer

AT_ONCE = 64
"""Sentences that are read at once where nothing is trained."""
Vectors = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoded:
    """Vectors of sentences.

    Attributes:
        vectors: [B C D].
        real: which of them say something, bool [B C].
    """

    vectors: Float[Tensor, "B C D"]
    real: Bool[Tensor, "B C"]

    @property
    def pooled(self) -> Float[Tensor, "B D"]:
        """The mean of the real vectors; zeros where there is none."""
        kept = self.real.unsqueeze(-1).to(self.vectors.dtype)
        return (self.vectors * kept).sum(1) / kept.sum(1).clamp_min(1)


Read = Callable[[nn.Module, Int[Tensor, "B N"], Bool[Tensor, "B N"]], Encoded]
"""(network, tokens, which are real) → vectors; gradients flow."""


def read_concepts(network: nn.Module, ids: Int[Tensor, "B N"], real: Bool[Tensor, "B N"]) -> Encoded:
    """The concept vectors of each row."""
    assert isinstance(network, SourceNetwork), "chosen by `reader_of`"
    concepts = network.encode(ids, real=real)
    return Encoded(vectors=concepts.vectors, real=concepts.real)


def read_states(network: nn.Module, ids: Int[Tensor, "B N"], real: Bool[Tensor, "B N"]) -> Encoded:
    """The last hidden state of each token, read clean, each row as one document."""
    time = torch.zeros(len(ids), device=ids.device)
    states = before_projection(network, lambda: network(ids, time, segments=real.long(), positions=real))
    vectors = states.new_zeros(*ids.shape, states.shape[-1])
    vectors[real] = states
    return Encoded(vectors=vectors, real=real)


def read_embeddings(network: nn.Module, ids: Int[Tensor, "B N"], real: Bool[Tensor, "B N"]) -> Encoded:
    """The embedding of each token by itself, the mean of all embeddings removed: a bag of them once it is pooled."""
    table = embedding_of(network, least=int(ids.max()) + 1)
    return Encoded(vectors=table(ids) - table.weight.mean(0), real=real)


def in_bfloat16(read: Read) -> Read:
    """The same reading with a network's products in bfloat16, as autocast chooses them; its vectors in float32."""

    def halved(network: nn.Module, ids: Int[Tensor, "B N"], real: Bool[Tensor, "B N"]) -> Encoded:
        with torch.autocast(ids.device.type, dtype=torch.bfloat16):
            encoded = read(network, ids, real)
        return Encoded(vectors=encoded.vectors.float(), real=encoded.real)

    return halved


def reader_of(network: nn.Module) -> Read:
    """How a network reads sentences.

    Raises:
        UserError: it has neither concept vectors nor hidden states to give.
    """
    if isinstance(network, SourceNetwork):
        return read_concepts
    projection_of(network)
    return read_states


class _Reached(Exception):
    """Carries what the vocabulary projection would have been called with."""

    def __init__(self, states: Tensor) -> None:
        super().__init__("the vocabulary projection was reached")
        self.states = states


def before_projection(network: nn.Module, call: Callable[[], object]) -> Float[Tensor, "M D"]:
    """What a network's vocabulary projection would be called with; the call ends there, so that it costs nothing."""

    def stop(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        raise _Reached(inputs[0])

    last = network.get_submodule("head") if isinstance(network, SourceNetwork) else projection_of(network)
    hook = last.register_forward_pre_hook(stop)
    try:
        call()
    except _Reached as reached:
        return reached.states
    finally:
        hook.remove()
    raise AssertionError("a forward pass ends in the vocabulary projection")


def embedding_of(network: nn.Module, *, least: int) -> nn.Embedding:
    """A network's embeddings of the tokens that it encodes: its own table for them, or the first of so many rows.

    Raises:
        UserError: it has none.
    """
    own = getattr(network, "source_embedding", None)
    for module in (own, *network.modules()):
        if isinstance(module, nn.Embedding) and module.num_embeddings >= least:
            return module
    raise UserError(f"a {type(network).__name__} has no table of embeddings")


@dataclass(frozen=True, kw_only=True)
class Wording:
    """Sentences as tokens; characters that the tokenizer does not know are left out.

    Attributes:
        tokenizer: the model's.
        length: tokens that a row has at most.
    """

    tokenizer: Tokenizer
    length: int

    def alone(self, texts: Sequence[str]) -> list[Ids]:
        """The tokens of each sentence, cut at `length`; an empty one is an end of text."""
        return [self._ids(ids)[: self.length] for ids in self._encoded(texts)]

    def joined(self, first: Sequence[str], second: Sequence[str]) -> list[Ids]:
        """Pairs as one row each: the first sentence, an end of text, the second; the longer one is cut to fit."""
        rows = []
        for one, other in zip(self._encoded(first), self._encoded(second), strict=True):
            room = self.length - 1
            left = max(room - len(other), room // 2)
            right = max(room - len(one), room - room // 2)
            rows.append(np.concatenate([one[:left], [self.tokenizer.eos_id], other[:right]]).astype(np.int64))
        return rows

    def too_long(self, *columns: Sequence[str]) -> int:
        """How many sentences are cut, each by itself."""
        return sum(len(ids) > self.length for texts in columns for ids in self._encoded(texts))

    def too_long_together(self, *columns: Sequence[str]) -> int:
        """How many pairs are cut where both sentences are in one row; of single sentences as `too_long`."""
        if len(columns) == 1:
            return self.too_long(*columns)
        pairs = zip(*(self._encoded(texts) for texts in columns), strict=True)
        return sum(sum(map(len, pair)) > self.length - 1 for pair in pairs)

    def _encoded(self, texts: Sequence[str]) -> list[Ids]:
        try:
            found = self.tokenizer.encode_batch(list(texts))
        except UserError:  # characters that the tokenizer does not know are left out
            known = set(encodable("".join(set("".join(texts))), self.tokenizer))
            found = self.tokenizer.encode_batch(["".join(filter(known.__contains__, text)) for text in texts])
        return [encoding.ids.astype(np.int64) for encoding in found]

    def _ids(self, ids: Ids) -> Ids:
        return ids if len(ids) else np.array([self.tokenizer.eos_id])


def padded(rows: Sequence[Ids], *, fill: int, device: torch.device) -> tuple[Int[Tensor, "B N"], Bool[Tensor, "B N"]]:
    """Rows of tokens filled up to the longest, and which places are real."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), fill, device="cpu")
    real = torch.zeros_like(ids, dtype=torch.bool)
    for k, row in enumerate(rows):
        ids[k, : len(row)] = torch.from_numpy(row)
        real[k, : len(row)] = True
    return ids.to(device), real.to(device)


def pooled(vectors: Vectors) -> Vectors:
    """The mean vector of each sentence [n 1 D]."""
    return vectors.mean(1, keepdims=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class SentenceEncoder:
    """A frozen model as a map from sentences to vectors.

    Attributes:
        network: the model's, or one like it.
        read: how it gives vectors.
        wording: how it sees sentences.
    """

    network: nn.Module
    read: Read
    wording: Wording

    def encode(self, texts: Sequence[str]) -> Vectors:
        """The vectors of each sentence [n C D]: its concepts, or the mean of the vectors of its tokens (C = 1).

        Raises:
            UserError: the network encodes sentences into nothing.
        """
        return self._shaped(texts, np.asarray)

    def means(self, texts: Sequence[str]) -> Vectors:
        """The mean vector of each sentence [n 1 D], without holding its concepts [n C D] at once.

        Raises:
            UserError: as `encode`.
        """
        return self._shaped(texts, pooled)

    def _shaped(self, texts: Sequence[str], shape: Callable[[Vectors], Vectors]) -> Vectors:
        """What a function of vectors makes of each sentence; sentences of about one length are read together."""
        rows = self.wording.alone(texts)
        order = np.argsort([len(row) for row in rows], kind="stable")
        found: Vectors | None = None
        for start in range(0, len(rows), AT_ONCE):
            chosen = order[start : start + AT_ONCE]
            part = shape(self._encode([rows[k] for k in chosen.tolist()]))
            found = np.empty((len(rows), *part.shape[1:]), dtype=part.dtype) if found is None else found
            found[chosen] = part
        assert found is not None, "there is a sentence"
        return found

    @torch.no_grad()
    def _encode(self, rows: Sequence[Ids]) -> Vectors:
        self.network.eval()
        device = next(self.network.parameters()).device
        ids, real = padded(rows, fill=self.wording.tokenizer.eos_id, device=device)
        encoded = self.read(self.network, ids, real)
        if not encoded.real.any():
            raise UserError("this network encodes a sentence into no vector at all. Evaluate one that has concepts")
        whole = bool(encoded.real.all()) and encoded.vectors.shape[1] == self._fixed
        vectors = encoded.vectors if whole else encoded.pooled.unsqueeze(1)
        return vectors.float().cpu().numpy()

    @property
    def _fixed(self) -> int | None:
        """The number of vectors of every sentence; None where it is that of its tokens."""
        return getattr(self.network, "concepts", None) if self.read is read_concepts else None
