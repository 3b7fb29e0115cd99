"""Training a model and a head together on a sentence task: rates and epochs chosen on a part of the training examples.

Shape letters: n examples, B a batch, K outputs.
"""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from remask.errors import RunError
from remask.randomness import derive_seed, keyed_dropout, keyed_generator
from remask.sentences.encoders import Read, Wording
from remask.sentences.head_names import make_head, tokens_for
from remask.sentences.heads import Tokens
from remask.sentences.metrics import Metric, Numbers
from remask.sentences.splits import TaskData

BATCH = 32
BUCKET = 32 * BATCH
"""Examples that are sorted by length together, so that a batch holds little padding."""
WARM_UP = 0.1
"""Share of the steps in which the rate rises; then it falls to 0."""
DECAY, CLIP = 0.01, 1.0


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast a network and its head learn.

    Attributes:
        rate: the head's learning rate.
        share: of it, the network's: what a network knows already is kept the better the less of it there is
            (discriminative fine-tuning, arXiv:1801.06146, section 3.2).
    """

    rate: float
    share: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How models are fine-tuned.

    Attributes:
        rates: learning rates that are tried.
        shares: of each rate for the network under the head, tried each.
        seeds: trainings whose scores are averaged; the first one chooses rate and share.
        epochs: over the training examples at most; each training keeps its best.
        seed: of the first of them.
    """

    rates: tuple[float, ...]
    seeds: int
    epochs: int
    seed: int
    shares: tuple[float, ...] = (1.0,)

    @property
    def paces(self) -> tuple[Pace, ...]:
        """All that are tried."""
        return tuple(Pace(rate=rate, share=share) for rate in self.rates for share in self.shares)


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """What is fine-tuned.

    Attributes:
        network: its weights are copied before each training.
        read: how it gives vectors.
        wording: how it sees sentences.
    """

    network: nn.Module
    read: Read
    wording: Wording


@dataclass(frozen=True, kw_only=True, eq=False)
class Tuned:
    """What came of it.

    Attributes:
        predictions: of the reported examples, one a seed.
        pace: that was chosen.
        selection: the score of each pace on the examples that settings were chosen on.
    """

    predictions: list[Numbers]
    pace: Pace
    selection: Mapping[Pace, float]


def fine_tuned(
    draws: Sequence[Subject], head: str, data: TaskData, *, parts: tuple[Any, Any], metric: Metric, tuning: Tuning
) -> Tuned:
    """Trains at each pace, chooses one, and trains at it from other seeds too.

    The reported examples are read by the chosen trainings alone, once each.

    Args:
        draws: the model; or several, that each seed has its own, again from the first where they are fewer.
        head: cls, via_decoder, pooled, pair, match, overlap or named.
        data: the task.
        parts: numbers of the training examples to fit on, and of those to choose on.
        metric: what chooses; higher is better.
        tuning: paces, seeds and epochs.

    Raises:
        RunError: no pace gave a finite loss, or the chosen one did not from another seed.
    """
    trial = _Trial(draws=draws, head=head, data=data, parts=parts, metric=metric, tuning=tuning)
    first = {pace: trial.train(pace, tuning.seed) for pace in tuning.paces}
    best = max(first, key=lambda pace: first[pace].score)
    chosen = [first[best], *(trial.train(best, tuning.seed + k) for k in range(1, tuning.seeds))]
    lost = [each.seed for each in chosen if each.weights is None]
    if lost:
        where = "at any rate" if first[best].weights is None else f"at a rate of {best.rate:g} from seed {lost[0]}"
        raise RunError(f"{data.task.name}, head {head}: the loss was not finite {where}. Give lower --learning-rates")
    return Tuned(
        predictions=[trial.predict(each) for each in chosen],
        pace=best,
        selection={pace: each.score for pace, each in first.items()},
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Trained:
    """A training's best epoch: its score, its weights (None where the loss was not finite), and its seed."""

    score: float
    weights: Mapping[str, Tensor] | None
    seed: int


class Descent:
    """AdamW at a rate that rises in the first tenth of the steps, then falls to 0.

    Args:
        together: its weights are trained.
        pace: the largest learning rates.
        steps: how many there will be.
    """

    def __init__(self, together: "Together", *, pace: Pace, steps: int) -> None:
        rates = {"head": pace.rate, "network": pace.rate * pace.share}
        parts = [
            {"params": [each for each in together.get_submodule(name).parameters() if each.requires_grad], "lr": rate}
            for name, rate in rates.items()
        ]
        self.trained = [each for part in parts for each in part["params"]]
        self.optimizer = torch.optim.AdamW([part for part in parts if part["params"]], weight_decay=DECAY)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: _rate_share(step, steps))

    def step(self, loss: Tensor) -> None:
        """One step down a finite loss."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained, CLIP)
        self.optimizer.step()
        self.schedule.step()


class Together(nn.Module):
    """A network and the head that reads it."""

    def __init__(self, network: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.network, self.head = network, head

    def forward(self, batch: Sequence[Tokens]) -> Tensor:
        """The head's outputs [B K]."""
        return self.head(self.network, batch)


class _Trial:
    """All trainings of one subject, or of several draws of it, under one head on one task."""

    def __init__(
        self,
        *,
        draws: Sequence[Subject],
        head: str,
        data: TaskData,
        parts: tuple[Any, Any],
        metric: Metric,
        tuning: Tuning,
    ) -> None:
        self.draws, self.head, self.data, self.metric, self.tuning = draws, head, data, metric, tuning
        fit, choose = parts
        train = data.train
        self.fit, self.choose = train.take(fit), train.take(choose)
        self.rows = {id(each): tokens_for(head, each, draws[0].wording) for each in (self.fit, self.choose)}
        self.centre, self.spread = 0.0, 1.0
        if data.task.graded:
            self.centre, self.spread = float(self.fit.labels.mean()), float(self.fit.labels.std()) or 1.0

    def train(self, pace: Pace, seed: int) -> _Trained:
        """One training; its best epoch."""
        together = self._fresh(seed)
        rows, labels = self.rows[id(self.fit)], self._targets()
        descent = Descent(together, pace=pace, steps=self.tuning.epochs * math.ceil(len(rows) / BATCH))
        best = _Trained(score=-math.inf, weights=None, seed=seed)
        for epoch in range(self.tuning.epochs):
            together.train()
            with keyed_dropout(seed, "fine-tuning", epoch, device=labels.device):
                for chosen in batches(rows, seed=derive_seed(seed, "order", epoch)):
                    loss = self._loss(together([rows[k] for k in chosen]), labels[chosen])
                    if not torch.isfinite(loss):
                        return best
                    descent.step(loss)
            score = self.metric(self._predict(together, self.rows[id(self.choose)]), self.choose.labels)
            if score > best.score:
                best = _Trained(score=score, weights=copy.deepcopy(together.state_dict()), seed=seed)
        return best

    def predict(self, trained: _Trained) -> Numbers:
        """The predictions of a training's best epoch for the reported examples."""
        together = self._fresh(trained.seed)
        assert trained.weights is not None, "refused before"
        together.load_state_dict(trained.weights)
        return self._predict(together, tokens_for(self.head, self.data.reported, self.draws[0].wording))

    def _fresh(self, seed: int) -> Together:
        subject = self.draws[(seed - self.tuning.seed) % len(self.draws)]
        network = copy.deepcopy(subject.network)
        outputs = 1 if self.data.task.graded else len(self.data.classes)
        head = make_head(
            self.head,
            network,
            subject.read,
            wording=subject.wording,
            outputs=outputs,
            generator=keyed_generator(seed, "head", self.head),
        )
        return Together(network, head)

    def _targets(self) -> Tensor:
        device = next(self.draws[0].network.parameters()).device
        if self.data.task.graded:
            standard = (self.fit.labels - self.centre) / self.spread
            return torch.from_numpy(standard.astype(np.float32)).to(device)
        return torch.from_numpy(self.fit.labels).to(device)

    def _loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        if self.data.task.graded:
            return functional.mse_loss(outputs[:, 0].float(), labels)
        return functional.cross_entropy(outputs.float(), labels)

    @torch.no_grad()
    def _predict(self, together: Together, rows: Sequence[Tokens]) -> Numbers:
        together.eval()
        order = sorted(range(len(rows)), key=lambda k: _size(rows[k]))
        found: npt.NDArray[Any] = np.empty(len(rows), dtype=np.float64 if self.data.task.graded else np.int64)
        for start in range(0, len(rows), 2 * BATCH):
            chosen = order[start : start + 2 * BATCH]
            outputs = together([rows[k] for k in chosen]).float()
            found[chosen] = (outputs[:, 0] if self.data.task.graded else outputs.argmax(-1)).cpu().numpy()
        return found


def batches(rows: Sequence[Tokens], *, seed: int) -> Iterator[list[int]]:
    """Every number once, in batches of rows of about one length, in an order of the seed."""
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(rows)).tolist()
    groups = []
    for start in range(0, len(order), BUCKET):
        near = sorted(order[start : start + BUCKET], key=lambda k: _size(rows[k]))
        groups += [near[k : k + BATCH] for k in range(0, len(near), BATCH)]
    for k in draw.permutation(len(groups)).tolist():
        yield groups[k]


def _size(tokens: Tokens) -> int:
    return max(map(len, tokens))


def _rate_share(step: int, steps: int) -> float:
    """The share of the rate at a step: up in the first tenth, then down to 0."""
    rise = max(1, round(WARM_UP * steps))
    return min((step + 1) / rise, (steps - step) / max(1, steps - rise))
