"""A causal language model of transformers as a reader of text: its nats for each text, and its last hidden states.

It is called as transformers calls it, on token rows that begin with its own start token, so its figures are those of
the model as published: no mask token is added and no id left out of the softmax.

Shape letters: R rows, N tokens of the longest, V vocabulary, D width of a hidden state.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from remask.errors import UserError

LOGITS_AT_ONCE = 1 << 26
"""Logits of one call at most (a quarter of a GiB), where a single row has fewer."""
TOKENS_AT_ONCE = 1 << 13
USUAL_WINDOW = 2048
"""Tokens read at once by a model that says nothing of its context."""


@dataclass(frozen=True, kw_only=True)
class CausalReader:
    """A model and its tokenizer.

    Attributes:
        model: a causal language model of transformers, in evaluation mode.
        tokenizer: its tokenizer of transformers.
        start_id: read before the first token of a text and never scored.
        end_id: stands where a text ends.
        window: tokens that are read at once, the start included.
    """

    model: Any
    tokenizer: Any
    start_id: int
    end_id: int
    window: int

    @classmethod
    def of(cls, model: Any, tokenizer: Any, *, name: str) -> "CausalReader":
        """A reader that begins and ends texts as the tokenizer says, or as the other of the two where it has one only.

        Args:
            model: on its device.
            tokenizer: the model's.
            name: of the model, for the error.

        Raises:
            UserError: the tokenizer has neither a start nor an end of text.
        """
        ids = [token for token in (tokenizer.bos_token_id, tokenizer.eos_token_id) if token is not None]
        if not ids:
            raise UserError(
                f"{name}: its tokenizer has no start and no end of text, so the first token of a text cannot be "
                "judged. Give another model"
            )
        config = model.config.get_text_config()
        window = getattr(config, "max_position_embeddings", None) or USUAL_WINDOW
        return cls(model=model.eval(), tokenizer=tokenizer, start_id=ids[0], end_id=ids[-1], window=int(window))

    @property
    def start(self) -> str:
        """The start token as text."""
        return str(self.tokenizer.convert_ids_to_tokens(self.start_id))

    @torch.no_grad()
    def is_causal(self) -> bool:
        """Whether what is predicted at a place stays the same when later tokens change."""
        size = self.model.config.get_text_config().vocab_size
        ids = torch.tensor([self.start_id, *range(6)]).repeat(2, 1) % size
        ids[1, -3:] = (ids[1, -3:] + 1) % size
        seen = self.model(input_ids=ids.to(self.model.device), use_cache=False).logits[:, :-3].float()
        return bool(torch.allclose(seen[0], seen[1], rtol=1e-4, atol=1e-4 * float(seen.abs().max())))

    def tokens(self, text: str) -> list[int]:
        """A text's ids, without a start; special tokens written out in it stay text."""
        encoded = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)
        return list(encoded["input_ids"])

    @torch.no_grad()
    def nats(self, texts: Sequence[Sequence[int]]) -> npt.NDArray[np.float64]:
        """−log p of each text given the start token, float64, one a text.

        A text longer than the window is read in pieces, each of which begins with the start token again.

        Args:
            texts: ids of each, as `tokens` gives them, the end where there is one.
        """
        room = self.window - 1
        pieces = [
            (owner, text[start : start + room])
            for owner, text in enumerate(texts)
            for start in range(0, len(text), room)
        ]
        sums = np.zeros(len(texts))
        for group in _groups(pieces, vocabulary=self.model.config.get_text_config().vocab_size):
            ids, valid = self._rows([piece for _, piece in group])
            logits = self.model(input_ids=ids, attention_mask=valid.long(), use_cache=False).logits[:, :-1]
            wanted = valid[:, 1:]
            nats = torch.nn.functional.cross_entropy(logits[wanted].float(), ids[:, 1:][wanted], reduction="none")
            per_row = torch.zeros(wanted.shape, dtype=torch.float64, device=nats.device)
            per_row = per_row.masked_scatter(wanted, nats.double()).sum(-1).cpu().numpy()
            np.add.at(sums, [owner for owner, _ in group], per_row)
        return sums

    @torch.no_grad()
    def last_states(self, texts: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """The last layer's state at the last token of each text [R D], of which the first window is read.

        Args:
            texts: as for `nats`; an empty one has the state at the start token.
        """
        room = self.window - 1
        kept = [(place, list(text[:room])) for place, text in enumerate(texts)]
        states: dict[int, npt.NDArray[np.float32]] = {}
        for group in _groups(kept, vocabulary=1):
            ids, valid = self._rows([piece for _, piece in group])
            hidden = self.model.base_model(input_ids=ids, attention_mask=valid.long(), use_cache=False)[0]
            last = hidden[torch.arange(len(ids), device=ids.device), valid.sum(-1) - 1].float().cpu().numpy()
            states |= {place: state for (place, _), state in zip(group, last, strict=True)}
        return np.stack([states[place] for place in range(len(texts))])

    def _rows(self, pieces: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows of start token and piece, filled up on the right, and which places are none of the filling."""
        size = torch.tensor([len(piece) + 1 for piece in pieces])
        valid = torch.arange(int(size.max())) < size[:, None]
        ids = torch.full(valid.shape, self.end_id)
        ids[:, 0] = self.start_id
        for row, piece in enumerate(pieces):
            ids[row, 1 : len(piece) + 1] = torch.tensor(list(piece), dtype=torch.int64)
        device = self.model.device
        return ids.to(device), valid.to(device)


Piece = tuple[int, Sequence[int]]


def _groups(pieces: Sequence[Piece], *, vocabulary: int) -> Iterator[list[Piece]]:
    """Pieces of like length together, as many as one call takes, the longest first."""
    ordered = sorted(pieces, key=lambda piece: -len(piece[1]))
    room = max(1, min(TOKENS_AT_ONCE, LOGITS_AT_ONCE // vocabulary))
    start = 0
    while start < len(ordered):
        count = max(1, room // (len(ordered[start][1]) + 1))
        yield ordered[start : start + count]
        start += count
