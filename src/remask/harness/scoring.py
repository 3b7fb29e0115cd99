r"""The likelihood of a continuation given its context: by the bound, or exactly in one order.

    bound:    −log p(y | x) ≤ diffusion + reconstruction + prior, with noise on y alone                          (1)
    in order: −log P(y | x) = −Σ_i log p(y_i | x, y_{<i}, [MASK] from i on)                                      (2)

(2) is the exact log-probability with which the sampler draws y that reveals one token a call from the left: for
masking noise, block-wise sampling with blocks of one token; for an autoregressive model, its own law. It is one order
of many, so the bound (1), which is over random orders, may lie on either side of it.

Both condition on how long y is, since a network that sees both sides is shown where the row ends.

Shape letters: B continuations, L tokens of context and continuation together, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from remask.data.batch import Batch
from remask.errors import UserError
from remask.model import Model
from remask.objectives import BlockDiffusion
from remask.objectives.base import Network
from remask.objectives.prompt_dropout import unwrapped
from remask.processes import Masking
from remask.randomness import widest_float


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """Tokens to score.

    Attributes:
        context: ids that are given.
        ids: ids of the continuation.
    """

    context: tuple[int, ...]
    ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.context) + len(self.ids)

    def within(self, length: int) -> "Continuation":
        """The same with as much of the end of its context as a row of `length` tokens has room for.

        Raises:
            UserError: when the continuation alone is longer.
        """
        room = length - len(self.ids)
        if room < 0:
            raise UserError(
                f"a continuation of {len(self.ids)} tokens is longer than the rows of {length} that the model was "
                "trained on. Take a task with shorter answers, or a model of longer rows"
            )
        return Continuation(context=self.context[max(0, len(self.context) - room) :], ids=self.ids)


def continuation_batch(texts: Sequence[Continuation], *, multiple: int, pad_id: int) -> Batch:
    """One row a text, the continuations as targets; padded on the right to a multiple of `multiple` tokens."""
    length = max(len(text) for text in texts)
    length += -length % multiple
    ids = torch.full((len(texts), length), pad_id, dtype=torch.int64)
    targets = torch.zeros(len(texts), length, dtype=torch.bool)
    segments = torch.zeros_like(ids)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor([*text.context, *text.ids], dtype=torch.int64)
        targets[row, len(text.context) : len(text)] = True
        segments[row, : len(text)] = 1
    return Batch(
        ids=ids,
        segments=segments,
        targets=targets,
        byte_lengths=torch.zeros_like(ids),
        rows=torch.arange(len(texts)),
        global_size=len(texts),
    )


@torch.no_grad()
def objective_nats(
    model: Model[Any], texts: Sequence[Continuation], *, draws: int, generator: torch.Generator
) -> list[float]:
    """The bound (1), or −log p(y | x) itself where the model is autoregressive, in nats.

    Args:
        model: in evaluation mode.
        texts: no longer than the model's rows.
        draws: noise draws a continuation, for a bound.
        generator: on the model's device.
    """
    # block diffusion reads whole blocks only
    objective = unwrapped(model.objective)
    multiple = objective.block_length if isinstance(objective, BlockDiffusion) else 1
    batch = continuation_batch(texts, multiple=multiple, pad_id=model.tokenizer.eos_id).to(model.device)
    network: Network = model.network  # pyright: ignore[reportAssignmentType]
    terms = model.objective.likelihood_terms(network, batch, generator=generator, draws=draws)
    wide = [(term.to(widest_float(model.device)) * batch.targets).sum(-1) for term in terms.values()]
    return torch.stack(wide).sum(0).tolist()


def has_order(model: Model[Any]) -> bool:
    """Whether (2) is the law of a sampler of this model: one that hides what is not drawn yet."""
    return model.process is None or isinstance(model.process, Masking)


@torch.no_grad()
def ordered_nats(model: Model[Any], texts: Sequence[Continuation]) -> tuple[list[float], list[bool]]:
    """Equation (2) in nats, and whether each token is the likeliest at its turn; a call of the network a token.

    Args:
        model: in evaluation mode, with `has_order`.
        texts: no longer than the model's rows.
    """
    batch = continuation_batch(texts, multiple=1, pad_id=model.tokenizer.eos_id).to(model.device)
    nats = torch.zeros(len(texts), dtype=widest_float(model.device), device=model.device)
    greedy = torch.ones(len(texts), dtype=torch.bool, device=model.device)
    for here in _turns(batch):
        rows = here.any(-1)
        log_p = _log_next(model, batch, here)
        token = batch.ids[here]
        nats[rows] -= log_p.gather(-1, token[:, None]).squeeze(-1)
        greedy[rows] &= log_p.argmax(-1) == token
    return nats.tolist(), greedy.tolist()


@torch.no_grad()
def greedy_in_order(model: Model[Any], texts: Sequence[Continuation]) -> list[bool]:
    """Whether each token is the likeliest at its turn; a text that has failed is asked no more."""
    batch = continuation_batch(texts, multiple=1, pad_id=model.tokenizer.eos_id).to(model.device)
    greedy = torch.ones(len(texts), dtype=torch.bool, device=model.device)
    for here in _turns(batch):
        asked = here & greedy[:, None]
        rows = asked.any(-1)
        if not bool(rows.any()):
            break
        greedy[rows] &= _log_next(model, batch, asked).argmax(-1) == batch.ids[asked]
    return greedy.tolist()


def _turns(batch: Batch) -> list[Bool[Tensor, "B L"]]:
    """The place of the first token of each continuation, then that of the second, and so on."""
    turn = batch.targets.long().cumsum(-1) * batch.targets
    return [turn == i for i in range(1, int(turn.max()) + 1)]


def _log_next(model: Model[Any], batch: Batch, here: Bool[Tensor, "B L"]) -> Float[Tensor, "M V"]:
    """Log p at the true places of `here`, at most one a row, with its continuation masked from there on."""
    rows = here.any(-1)
    hidden = here.long().cumsum(-1).bool() & batch.targets
    z: Int[Tensor, "M L"] = batch.ids.masked_fill(hidden, model.mask_id)[rows]
    t = _row_times(model, hidden[rows], batch.targets[rows])
    logits = model.network(z, t, segments=batch.segments[rows], positions=here[rows])
    mask = torch.tensor([model.mask_id], device=model.device)
    return logits.to(widest_float(model.device)).index_fill(-1, mask, -torch.inf).log_softmax(-1)


def _row_times(model: Model[Any], hidden: Bool[Tensor, "M L"], targets: Bool[Tensor, "M L"]) -> Float[Tensor, "M"]:
    """What the network is told at the first step of a block of one token: the time of a row's masked share."""
    wide = widest_float(model.device)
    if model.process is None:
        return torch.zeros(len(hidden), dtype=wide, device=model.device)
    schedule = model.process.schedule
    last = schedule.alpha(torch.ones((), dtype=wide, device=model.device))  # signal that noise leaves at t = 1
    return schedule.time(1.0 - (hidden.sum(-1) - last) / targets.sum(-1))
