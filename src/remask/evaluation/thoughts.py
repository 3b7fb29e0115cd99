r"""How well a thought is denoised, by ranges of the time t, which a mean over all times hides.

A network that says x̂ of z_t = α_t x + σ_t ε stands beside two that have learned nothing: who says zero misses x by its
mean square s², and the best multiple of z_t by w(t) = s² σ_t²/(α_t² s² + σ_t²) (Wiener). With the mean over places and
draws in a range of t,

    skill R = 1 − E [‖x̂ − x‖²/W / w(t)],                                                                        (1)

0 for the filter, 1 for who knows the text, negative for who is worse than the filter. Beside the share of tokens that
the network names stands that of the vectors nearest to z_t/α_t: what can be read off z_t itself. Where that is all, the
level of noise teaches nothing. Two differences of cross-entropies are taken on the same noise, row by row:

    question gap   nats with another row's question − nats with the row's own         0 for a question that is not read
    memory gain    nats of the first look − nats of a second one that reads its estimate

Rows are filled up with ends of text, which are easily told and would hide how badly the rest is: a response counts up
to its first one.

Where thoughts are the vectors of a codec of responses, its decoder says which tokens they are of, the best multiple of
z_t in the place of z_t/α_t.

Shape letters: B rows of a batch, R rows judged, K ranges of t, S draws a row, L places, J vectors of noise a row, W
features, V vocabulary, T tokens.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from remask.data.batch import Batch
from remask.evaluation.likelihood import ROWS_AT_ONCE, Judged, placed_parts, ratio
from remask.evaluation.measurement import NEGLIGIBLE, Examples, Measurement
from remask.evaluation.other_questions import other_questions
from remask.gaussian import CLEAN
from remask.objectives.base import Network
from remask.objectives.prompt_dropout import unwrapped
from remask.objectives.readouts import Seen
from remask.objectives.thought import ThoughtDiffusion, rows_in, token_nats
from remask.objectives.thought_rows import ThoughtRows
from remask.objectives.without_likelihood import clean_nats
from remask.randomness import batch_normal, batch_uniform, keyed_generator
from remask.schedules import stratified

LEVELS = 10
BY_LEVEL = ("clean_error", "skill", "token_accuracy", "rounding_gain")
"""Figures that are given for each range of t."""
FILTER, ZERO, NEAREST = "linear filter", "predict zero", "nearest vector"
_NORMAL = 1.96

Sums = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class ThoughtSums:
    """What each judged row adds in each range of t, summed over its judged places.

    Attributes:
        edges: the times between which the ranges lie, from t_min to t_max [K + 1].
        variance: s², the mean square of a feature of the judged tokens' vectors.
        tokens: judged places [R].
        levels: name → what it adds, the mean over draws [R K]: `error` (‖x̂ − x‖²/W), `ratio` (that over w), `filter`
            (w), `zero` (s²/w), `right` and `nearest` (tokens named), `nats`, and where they were measured `other` (nats
            with another question) and `again` (nats of a second look).
        clean: tokens named at t_min, by the network (`right`) and by the nearest vector (`nearest`) [R].
    """

    edges: Sums
    variance: float
    tokens: Sums
    levels: Mapping[str, Sums]
    clean: Mapping[str, Sums] = field(default_factory=dict)


@torch.no_grad()
def row_thoughts(
    model: Judged,
    batches: Sequence[Batch],
    *,
    levels: int,
    draws: int,
    seed: int,
    eos_id: int | None = None,
    at_once: int = ROWS_AT_ONCE,
) -> ThoughtSums:
    """The sums of each row, in evaluation mode (no dropout).

    Args:
        model: network and objective, which is a `ThoughtDiffusion`.
        batches: the judged rows.
        levels: K.
        draws: of time and noise, a row and range; times are stratified within it.
        seed: with the batch's place, the key of all noise.
        eos_id: the end of text; what stands behind a response's first one only fills up its row, and is not judged.
            None: every place is.
        at_once: rows of a batch that the network sees together; their noise is the same whatever it is.
    """
    objective, network = _objective(model), cast(Network, model.network)
    was_training = model.network.training
    model.network.eval()
    batches = [batch.to(model.device) for batch in batches]
    every = [rows_in(batch, network) for batch in batches]
    tokens = torch.cat([judged_places(rows, eos_id=eos_id).sum(-1) for rows in every]).double()
    variance = float(sum(_square(rows, eos_id=eos_id) for rows in every) / tokens.sum())
    looks = _Looks(objective=objective, network=network, variance=variance, eos_id=eos_id)
    parts: dict[str, list[Tensor]] = {}
    clean: dict[str, list[Tensor]] = {}
    for (place, part), other in zip(
        placed_parts(batches, at_once=at_once), _parts(other_questions(batches), batches, at_once=at_once), strict=True
    ):
        generator = keyed_generator(seed, "thoughts", place, device=model.device)
        found = looks.at_levels(part, other, generator=generator, levels=levels, draws=draws)
        for name, values in found.items():
            parts.setdefault(name, []).append(values.cpu())
        for name, values in looks.at_clean_end(part, generator=generator).items():
            clean.setdefault(name, []).append(values.cpu())
    model.network.train(was_training)
    return ThoughtSums(
        edges=objective.diffusion.spread(torch.arange(levels + 1, dtype=torch.float64, device="cpu") / levels).numpy(),
        variance=variance,
        tokens=tokens.cpu().numpy(),
        levels={name: torch.cat(values).numpy() for name, values in parts.items()},
        clean={name: torch.cat(values).numpy() for name, values in clean.items()},
    )


def _parts(others: Sequence[Batch | None], batches: Sequence[Batch], *, at_once: int) -> Iterator[Batch | None]:
    """What stands beside each of `placed_parts`."""
    for other, batch in zip(others, batches, strict=True):
        yield from repeat(None, -(-len(batch) // at_once)) if other is None else other.parts(at_once)


def judged_places(rows: ThoughtRows, *, eos_id: int | None) -> Bool[Tensor, "B L"]:
    """The places of responses up to their first end of text: all that follows fills up a row, and is known from it."""
    if eos_id is None:
        return rows.free
    ends = (rows.ids == eos_id) & rows.free
    return rows.free & (ends.long().cumsum(-1) - ends.long() == 0)


def _square(rows: ThoughtRows, *, eos_id: int | None) -> Float[Tensor, ""]:
    """The mean squares of the coordinates of judged vectors, summed over places."""
    squares = rows.held(rows.clean[rows.noisy].double().square().mean(-1))
    return (squares * judged_places(rows, eos_id=eos_id)).sum()


@dataclass(frozen=True, kw_only=True)
class _Looks:
    """What one look at noisy rows tells.

    Attributes:
        objective: readout, noise and memory.
        network: of thoughts.
        variance: s².
        eos_id: as `row_thoughts` takes it.
    """

    objective: ThoughtDiffusion
    network: Network
    variance: float
    eos_id: int | None

    def at_levels(
        self, batch: Batch, other: Batch | None, *, generator: torch.Generator, levels: int, draws: int
    ) -> dict[str, Float[Tensor, "B K"]]:
        """The means over draws of all sums in each range."""
        times = self.objective.diffusion.spread(stratified(batch_uniform(generator, batch, levels * draws)))
        rows = rows_in(batch, self.network)
        exchanged = None if other is None else rows_in(other, self.network)
        drawn: list[dict[str, Tensor]] = []
        for t in times.unbind(-1):
            noise = batch_normal(generator, batch, *rows.drawn)
            drawn.append({**self._own(rows, t=t, noise=noise), **self._beside(rows, exchanged, t=t, noise=noise)})
        return {
            name: torch.stack([each[name] for each in drawn], -1).unflatten(-1, (levels, draws)).mean(-1)
            for name in drawn[0]
        }

    def at_clean_end(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Float[Tensor, "B"]]:
        """Tokens named where next to no noise is left, by the network and by the nearest vector."""
        rows = rows_in(batch, self.network)
        t = torch.full((len(batch),), self.objective.diffusion.t_min, device=generator.device)
        sums = self._own(rows, t=t, noise=batch_normal(generator, batch, *rows.drawn))
        return {name: sums[name] for name in ("right", "nearest")}

    def _own(self, rows: ThoughtRows, *, t: Float[Tensor, "B"], noise: Float[Tensor, "B J W"]) -> dict[str, Tensor]:
        seen = self._look(rows, t=t, noise=noise)
        estimate = self.objective.readout.estimate(seen)
        error = (estimate.clean - seen.x).double().square().mean(-1)
        floor = CLEAN.linear_floor(self.objective.diffusion.process, seen.t.double(), variance=self.variance)
        vectors = {"error": error, "ratio": error / floor, "filter": floor, "zero": self.variance / floor}
        tokens = {
            "right": (estimate.log_p.argmax(-1) == rows.tokens).double(),
            "nearest": (self.nearest(seen) == rows.tokens).double(),
            "nats": clean_nats(estimate.log_p, rows.tokens).double(),
        }
        judged = judged_places(rows, eos_id=self.eos_id)
        summed = {name: (rows.held(value) * judged).sum(-1) for name, value in vectors.items()}
        return summed | {name: (rows.of_tokens(value) * judged).sum(-1) for name, value in tokens.items()}

    def _beside(
        self, rows: ThoughtRows, other: ThoughtRows | None, *, t: Float[Tensor, "B"], noise: Float[Tensor, "B J W"]
    ) -> dict[str, Tensor]:
        """Nats with another question, and of a second look, on the same noise."""
        found = {}
        if other is not None:
            found["other"] = self._nats(self._look(other, t=t, noise=rows.moved(noise, other)))
        if self.objective.memory:
            found["again"] = self._nats(self.objective.look(self.network, rows, t=t, noise=noise, remembering=True))
        return found

    def nearest(self, seen: Seen) -> Int[Tensor, "T"]:
        """The tokens that noisy vectors show by themselves, the mask left out: those of the nearest vectors."""
        alpha, sigma = self.objective.diffusion.process.coefficients(seen.t.double())
        shown = seen.rows.read_off(seen.z.double(), alpha=alpha, sigma=sigma)
        shown[:, self.objective.readout.mask_id] = -torch.inf
        return shown.argmax(-1)

    def _nats(self, seen: Seen) -> Float[Tensor, "B"]:
        nats = seen.rows.of_tokens(token_nats(self.objective.readout, seen).double())
        return (nats * judged_places(seen.rows, eos_id=self.eos_id)).sum(-1)

    def _look(self, rows: ThoughtRows, *, t: Float[Tensor, "B"], noise: Float[Tensor, "B J W"]) -> Seen:
        return self.objective.look(self.network, rows, t=t, noise=noise, remembering=False)


def _objective(model: Judged) -> ThoughtDiffusion:
    objective = unwrapped(model.objective)
    assert isinstance(objective, ThoughtDiffusion), "checked before"
    return objective


# ── figures ────────────────────────────────────────────────────────────────────────────────────────────────────


def thought_measurements(sums: ThoughtSums, *, protocol: Mapping[str, Any], identity: str) -> list[Measurement]:
    """The figures of each range of t, from little noise to all, and those over all ranges.

    Args:
        sums: of the judged rows.
        protocol: split, rows, draws and seed; the range's times are added.
        identity: which rows these are.
    """
    protocol = {**protocol, "variance": round(sums.variance, 4)}
    figures = []
    for level, (low, high) in enumerate(zip(sums.edges[:-1], sums.edges[1:], strict=True)):
        times = {"t": _short((low + high) / 2), "t_low": _short(low), "t_high": _short(high)}
        figures += _at_level(sums, level, protocol={**protocol, **times})
    over = _Over(sums=sums, protocol=protocol, identity=identity)
    if sums.clean:
        beside = {NEAREST: float(sums.clean["nearest"].sum() / sums.tokens.sum())}
        figures.append(over("decode_oracle", sums.clean["right"], weights=sums.tokens, unit="share", beside=beside))
    own, all_tokens = sums.levels["nats"].sum(1), sums.tokens * (len(sums.edges) - 1)
    if "other" in sums.levels:
        gap = sums.levels["other"].sum(1) - own
        figures.append(
            over("question_gap", gap, weights=all_tokens, unit="nats/token", beside={"unread question": 0.0})
        )
    if "again" in sums.levels:
        gain = own - sums.levels["again"].sum(1)
        figures.append(over("memory_gain", gain, weights=all_tokens, unit="nats/token", beside={"no memory": 0.0}))
    return figures


@dataclass(frozen=True, kw_only=True)
class _Over:
    """Makes figures over rows, that two models can be compared by in pairs."""

    sums: ThoughtSums
    protocol: Mapping[str, Any]
    identity: str

    def __call__(
        self, name: str, values: Sums, *, weights: Sums, unit: str, beside: Mapping[str, float]
    ) -> Measurement:
        value, error = ratio(values, weights)
        return Measurement(
            name=name,
            value=value,
            unit=unit,
            n=len(values),
            stderr=error,
            trivial=dict(beside),
            protocol=dict(self.protocol),
            examples=Examples(identity=self.identity, values=values.tolist(), weights=weights.tolist()),
        )


def _at_level(sums: ThoughtSums, level: int, *, protocol: Mapping[str, Any]) -> list[Measurement]:
    here = {name: values[:, level] for name, values in sums.levels.items()}

    def mean(name: str) -> float:
        return ratio(here[name], sums.tokens)[0]

    def figure(name: str, values: Sums, *, unit: str, beside: Mapping[str, float]) -> Measurement:
        value, error = ratio(values, sums.tokens)
        n = len(values)
        return Measurement(
            name=name, value=value, unit=unit, n=n, stderr=error, trivial=dict(beside), protocol=dict(protocol)
        )

    floors = {ZERO: sums.variance, FILTER: mean("filter")}
    skills = {ZERO: 1.0 - mean("zero"), FILTER: 0.0}
    return [
        figure("clean_error", here["error"], unit="mean square", beside=floors),
        figure("skill", sums.tokens - here["ratio"], unit="share of the filter's error", beside=skills),
        figure("token_accuracy", here["right"], unit="share", beside={NEAREST: mean("nearest")}),
        figure("rounding_gain", here["right"] - here["nearest"], unit="share", beside={NEAREST: 0.0}),
    ]


def interval(measurement: Measurement) -> tuple[float, float] | None:
    """A 95 % interval by the normal approximation; None without a standard error."""
    if measurement.stderr is None:
        return None
    return measurement.value - _NORMAL * measurement.stderr, measurement.value + _NORMAL * measurement.stderr


def thought_sentences(measurements: Sequence[Measurement]) -> list[str]:
    """What the figures of a thought say, in words; nothing where they were not measured."""
    said = _skill_sentences([figure for figure in measurements if figure.name == "skill"])
    for figure in measurements:
        say = _SENTENCES.get(figure.name)
        bounds = interval(figure)
        if say is not None and bounds is not None:
            said.append(say(figure, bounds))
    return said


def _skill_sentences(skills: Sequence[Measurement]) -> list[str]:
    bad = [figure for figure in skills if not figure.value > 0]
    if not bad:
        return []
    worst = min(bad, key=lambda figure: figure.value)
    low, high = worst.protocol["t_low"], worst.protocol["t_high"]
    return [
        f"NO SKILL over a linear filter, which has 0, in {len(bad)} of {len(skills)} ranges of t: {worst.value:,.3f} "
        f"at t = {low:.2f} to {high:.2f}. A mean over all t hides that."
    ]


def _gap_sentence(figure: Measurement, bounds: tuple[float, float]) -> str:
    told = "the question is read" if bounds[0] > NEGLIGIBLE else "NO USE OF THE QUESTION"
    return f"question gap: {figure.value:.4f} nats a token, 95 % interval {bounds[0]:.4f} to {bounds[1]:.4f}: {told}"


def _oracle_sentence(figure: Measurement, bounds: tuple[float, float]) -> str:
    del bounds
    told = "clean vectors are read as their tokens" if figure.value > 0.99 else "CLEAN VECTORS ARE NOT READ AS TOKENS"
    return f"decode oracle: {figure.value:.1%} of the tokens from vectors with next to no noise: {told}"


_SENTENCES: Mapping[str, Callable[[Measurement, tuple[float, float]], str]] = {
    "question_gap": _gap_sentence,
    "decode_oracle": _oracle_sentence,
}


def _short(time: float) -> float:
    return round(float(time), 6)
