"""Models that read samples, whosever they are: judges of their likelihood, and givers of hidden states.

Shape letters: n samples, L tokens of a row, M positions, V vocabulary, D width of a hidden state.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from remask.errors import UserError
from remask.evaluation.causal_reader import CausalReader
from remask.evaluation.judged import Ids, Verdicts, documents, judged, judged_by_reader, passage, sample_batch
from remask.evaluation.likelihood import ROWS_AT_ONCE
from remask.model import Model
from remask.networks.pretrained import PretrainedDenoiser
from remask.networks.transformer import Transformer
from remask.tokenizers import Tokenizer

States = npt.NDArray[np.float32]


@runtime_checkable
class Reader(Protocol):
    """A model that reads samples of any model."""

    @property
    def name(self) -> str:
        """Its run, or its folder's name."""
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """What else tells it from others: hashes of weights and tokenizer, and how much it reads at once."""
        ...

    @property
    def state(self) -> str:
        """Which hidden state stands for a text, in words."""
        ...

    def readable(self, text: str) -> str:
        """The text without characters that it cannot read."""
        ...

    def verdicts(self, samples: Sequence[Ids], tokenizer: Tokenizer) -> Verdicts:
        """−log p of each sample."""
        ...

    def states(self, samples: Sequence[Ids], tokenizer: Tokenizer) -> States:
        """One hidden state for each sample [n D]."""
        ...


def reader_protocol(role: str, reader: Reader) -> dict[str, Any]:
    """What a protocol says of a reader in a role: `judge` or `features`."""
    return {role: reader.name, **{f"{role}_{fact}": value for fact, value in reader.facts.items()}}


@dataclass(frozen=True, kw_only=True, eq=False)
class RunReader:
    """A model of remask. It reads samples of its own tokenizer as they are, and others' text tokenized anew.

    Attributes:
        name: of its run or folder.
        model: the model.
        weights: hash of the weights.
    """

    name: str
    model: Model
    weights: str

    @property
    def facts(self) -> Mapping[str, Any]:
        """As `Reader`."""
        return {
            "weights": self.weights,
            "tokenizer": self.model.tokenizer.fingerprint,
            "row": self.model.length,
        }

    @property
    def state(self) -> str:
        """As `Reader`; each place sees its own document."""
        return "mean over places"

    def readable(self, text: str) -> str:
        """As `Reader`: without bytes that make no character of its tokenizer."""
        return encodable(text, self.model.tokenizer)

    def verdicts(self, samples: Sequence[Ids], tokenizer: Tokenizer) -> Verdicts:
        """As `Reader`, in rows as long as the model was trained on.

        Raises:
            ValueError: the model's likelihood is a bound.
            UserError: its tokenizer lacks a character.
        """
        own = self.model.tokenizer
        passages = [passage(ids, tokenizer, judge=own) for ids in samples]
        return judged(self.model, passages, length=self.model.length, eos_id=own.eos_id)

    @torch.no_grad()
    def states(self, samples: Sequence[Ids], tokenizer: Tokenizer) -> States:
        """As `Reader`: the mean over the first row of a sample of what the vocabulary projection reads."""
        own, length = self.model.tokenizer, self.model.length
        rows = [passage(ids, tokenizer, judge=own).ids[:length] for ids in samples]
        means = []
        self.model.network.eval()
        for start in range(0, len(rows), ROWS_AT_ONCE):
            batch = sample_batch(rows[start : start + ROWS_AT_ONCE], length=length, eos_id=own.eos_id)
            here = batch.to(self.model.device)
            with _inputs_of(projection_of(self.model.network)) as seen:
                time = torch.zeros(len(here), device=self.model.device)
                self.model.network(here.ids, time, segments=here.segments, positions=here.targets)
            row = here.targets.nonzero()[:, 0]
            sums = torch.zeros(len(here), seen[0].shape[-1], device=row.device).index_add(0, row, seen[0].float())
            means.append(sums / here.targets.sum(-1, keepdim=True).clamp_min(1))
        return torch.cat(means).cpu().numpy()


@dataclass(frozen=True, kw_only=True, eq=False)
class FolderReader:
    """A causal language model of transformers. Text is tokenized anew, and each document begins with its start token.

    Attributes:
        name: of its folder.
        reader: the model with its tokenizer.
        weights: hash of configuration and weights.
        tokenizer: hash of the tokenizer's files.
    """

    name: str
    reader: CausalReader
    weights: str
    tokenizer: str

    @property
    def facts(self) -> Mapping[str, Any]:
        """As `Reader`."""
        return {
            "weights": self.weights,
            "tokenizer": self.tokenizer,
            "row": self.reader.window,
            "start": self.reader.start,
        }

    @property
    def state(self) -> str:
        """As `Reader`, and as in the paper on MAUVE."""
        return "last token"

    def readable(self, text: str) -> str:
        """As `Reader`: all of it."""
        return text

    def verdicts(self, samples: Sequence[Ids], tokenizer: Tokenizer) -> Verdicts:
        """As `Reader`."""
        return judged_by_reader(self.reader, samples, tokenizer)

    def states(self, samples: Sequence[Ids], tokenizer: Tokenizer) -> States:
        """As `Reader`: the documents of a sample are read as one text, its ends of text between them."""
        texts = []
        for ids in samples:
            parts = [self.reader.tokens(text) + [self.reader.end_id] * end for text, end in documents(ids, tokenizer)]
            texts.append([token for part in parts for token in part])
        return self.reader.last_states(texts)


def encodable(text: str, tokenizer: Tokenizer) -> str:
    """A text without the characters that the tokenizer does not know (bytes that make none)."""

    def known(character: str) -> bool:
        try:
            tokenizer.encode(character)
        except UserError:
            return False
        return True

    kept = set(filter(known, set(text)))
    return "".join(character for character in text if character in kept)


@contextmanager
def _inputs_of(module: nn.Module) -> Iterator[list[torch.Tensor]]:
    """What the module is called with meanwhile."""
    seen: list[torch.Tensor] = []
    hook = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        hook.remove()


def projection_of(network: nn.Module) -> nn.Module:
    """The layer that reads the last hidden states [M D] and answers with logits [M V]."""
    for module in network.modules():
        match module:
            case Transformer():
                return module.head
            case PretrainedDenoiser():
                return module.backbone.get_output_embeddings()
    raise UserError(f"a {type(network).__name__} has no hidden states to give. Name another model with --features")
