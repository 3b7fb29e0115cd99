"""Training figures between two logged lines."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from remask.training import Step

LIKELIHOOD_TERMS = ("diffusion", "next_token")
"""Terms of a training loss that estimate the likelihood; a partial loss (a curriculum) has none, and is none."""


@dataclass
class Window:
    """Training figures since the last logged line; kept in checkpoints, so that a resumed line averages the same steps.

    Attributes:
        losses: of each step, nats a token.
        likelihoods: of each step whose loss estimates one, nats a token.
        norms: of each step's gradient.
        terms: of the loss, summed over the steps, nats a token.
        inversion_error: the largest of the steps, as `remask.networks.reversible` measures it; None where nothing is
            undone.
        skipped: steps that left the weights as they were.
        tokens: trained on since the line, or since the run was resumed.
        since: when that was, by a monotonic clock, in seconds.
    """

    losses: list[float] = field(default_factory=list)
    likelihoods: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    terms: dict[str, float] = field(default_factory=dict)
    inversion_error: float | None = None
    skipped: int = 0
    tokens: int = 0
    since: float = field(default_factory=time.monotonic)

    def add(self, step: Step, *, inversion_error: float | None = None) -> None:
        """Takes a step in; of one that was left out, only that it was, and how well its blocks were undone.

        Args:
            step: made or left out.
            inversion_error: of its backward pass; not a number counts as infinite.
        """
        self.tokens += step.tokens
        if inversion_error is not None:
            found = math.inf if math.isnan(inversion_error) else inversion_error
            self.inversion_error = max(found, self.inversion_error or 0.0)
        if not step.updated:
            self.skipped += 1
            return
        self.losses.append(step.loss)
        self.likelihoods += [step.terms[name] for name in LIKELIHOOD_TERMS if name in step.terms]
        self.norms.append(step.gradient_norm)
        for name, value in step.terms.items():
            self.terms[name] = self.terms.get(name, 0.0) + value

    def figures(self, *, now: float, bytes_per_token: float) -> dict[str, float]:
        """Mean loss and gradient norm, tokens a second, and bits a byte where every step estimated the likelihood.

        Where every step was left out there is no loss to speak of: it is nan, as is the norm.
        """
        count = len(self.losses)
        figures = {
            "loss": sum(self.losses) / count if count else math.nan,
            "gradient_norm": sum(self.norms) / count if count else math.nan,
            "tokens_per_second": self.tokens / max(now - self.since, 1e-9),
        }
        if count and len(self.likelihoods) == count:
            figures["bits_per_byte"] = sum(self.likelihoods) / count / math.log(2) / bytes_per_token
        return figures | ({"skipped_steps": self.skipped} if self.skipped else {})

    def inversion_figures(self, gather: Callable[[float], Sequence[float]]) -> dict[str, float]:
        """The largest inversion error of all processes; empty where nothing is undone.

        Args:
            gather: this process's value → those of all, which undo the same blocks.
        """
        error = self.inversion_error
        return {} if error is None else {"inversion_error": max(gather(error))}

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        kept = ("losses", "likelihoods", "norms", "terms", "inversion_error", "skipped")
        return {name: getattr(self, name) for name in kept}
