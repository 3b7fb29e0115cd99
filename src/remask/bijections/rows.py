"""Texts as rows of tokens: which of their tokens noise decides, which are given, and which are padding.

Shape letters: N rows, L length.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from remask.data.batch import Batch
from remask.errors import UserError
from remask.generation import TEXTS_AT_ONCE
from remask.samplers.base import Prompt
from remask.tokenizers import Tokenizer


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenRows:
    """Rows of tokens on the CPU, shorter ones filled up with ends of text that are no part of them.

    Attributes:
        ids: tokens, int64 [N L].
        valid: which of them belong to the row's text [N L].
        free: which of those noise decides; the others are given, as prompts of pairs are [N L].
        byte_lengths: UTF-8 bytes that each token stands for [N L].
    """

    ids: Int[Tensor, "N L"]
    valid: Bool[Tensor, "N L"]
    free: Bool[Tensor, "N L"]
    byte_lengths: Int[Tensor, "N L"]

    def __len__(self) -> int:
        return self.ids.shape[0]

    @property
    def batches(self) -> Iterator[slice]:
        """The rows of each batch, `TEXTS_AT_ONCE` but for the last.

        Fixed, for encoding and decoding must see logits that are equal to the last bit: the order in which a matrix
        product adds up depends on its shape, so the same row in a batch of another size has other rounding.
        """
        return (slice(start, start + TEXTS_AT_ONCE) for start in range(0, len(self), TEXTS_AT_ONCE))

    def prompt(self, rows: slice, *, device: torch.device) -> Prompt:
        """All that noise does not decide in a batch, padding included."""
        return Prompt(ids=self.ids[rows].to(device), fixed=~self.free[rows].to(device))

    def repeated(self, count: int) -> "TokenRows":
        """Each row `count` times, one after the other."""
        return TokenRows(**{f.name: getattr(self, f.name).repeat_interleave(count, 0) for f in fields(self)})

    def taken(self, rows: slice | Sequence[int]) -> "TokenRows":
        """Some of the rows."""
        return TokenRows(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def cut(self, length: int) -> "TokenRows":
        """The first `length` tokens of each row."""
        return TokenRows(**{f.name: getattr(self, f.name)[:, :length] for f in fields(self)})

    def with_ids(self, ids: Int[Tensor, "N L"]) -> "TokenRows":
        """Other tokens in the same places; their bytes are not known, and counted as none."""
        return replace(self, ids=ids, byte_lengths=torch.zeros_like(ids))

    def texts(self, ids: Int[Tensor, "N L"], tokenizer: Tokenizer) -> list[str]:
        """Other tokens in these rows' places as text, without padding."""
        return [tokenizer.decode(row[kept]) for row, kept in zip(ids, self.valid, strict=True)]

    def differing(self, ids: Int[Tensor, "N L"]) -> Int[Tensor, "N"]:
        """How many free tokens of each row are not those of `ids`."""
        return ((self.ids != ids) & self.free).sum(-1)


def rows_of_texts(texts: Sequence[str], tokenizer: Tokenizer, *, length: int) -> TokenRows:
    """Texts of whatever lengths, every token of them free.

    Args:
        texts: one row each.
        tokenizer: the model's.
        length: the longest row that the model was trained on, in tokens.

    Raises:
        UserError: when one is empty, too long, or has a character that the tokenizer lacks; it says which.
    """
    encoded = []
    for number, text in enumerate(texts, start=1):
        name = "the text" if len(texts) == 1 else f"text {number}"
        try:
            tokens = tokenizer.encode(text)
        except UserError as error:
            raise UserError(f"{name}: {error}") from None
        if len(tokens) == 0:
            raise UserError(f"{name} is empty: it has no token that noise could be recovered from. Give some words")
        if len(tokens) > length:
            raise UserError(
                f"{name} has {len(tokens)} tokens, and the model was trained on rows of {length}. Valid: 1 to {length} "
                "tokens; shorten it"
            )
        encoded.append(tokens)
    longest = max(map(len, encoded))
    ids = torch.full((len(encoded), longest), tokenizer.eos_id)
    sizes, valid = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
    for row, tokens in enumerate(encoded):
        ids[row, : len(tokens)] = torch.from_numpy(tokens.ids).long()
        sizes[row, : len(tokens)] = torch.from_numpy(tokens.byte_lengths).long()
        valid[row, : len(tokens)] = True
    return TokenRows(ids=ids, valid=valid, free=valid.clone(), byte_lengths=sizes)


def rows_of_batch(batch: Batch) -> TokenRows:
    """Held-out rows; the prompts of pairs are given, all else is free."""
    return TokenRows(ids=batch.ids, valid=batch.segments != 0, free=batch.targets, byte_lengths=batch.byte_lengths)
