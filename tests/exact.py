"""Slow, exact references, written from the definitions of the papers and not from the code under test.

Nothing here imports remask. A noise is a matrix of probabilities, derivatives in time are taken by a complex step,
posteriors by summing over every text, and laws of samplers by summing over every path.

Letters: V ids (mask included), L length, K texts, S = V^L states, B rows.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from scipy.linalg import expm

SCHEDULES: dict[str, Callable] = {
    "linear": lambda t: 1 - t,  # MDLM, MD4 table 1
    "cosine": lambda t: 1 - np.cos(np.pi / 2 * (1 - t)),  # MD4 table 1
    "polynomial": lambda t: 1 - t**2,  # MD4 table 1, w = 2
    "log_linear": lambda t: 1 - 0.9 * t,  # SEDD appendix C: total noise −log(1 − (1 − ε) t), ε = 0.1
}


@dataclass(frozen=True)
class Noise:
    """q_t(z | x) of one token: masking (MDLM), uniform (UDLM) or hybrid (GIDD equations 9 to 11 with γ = 1)."""

    kind: str
    alpha: Callable
    vocab_size: int
    mask_id: int
    uniform_share: float = 0.0

    @property
    def clean(self) -> list[int]:
        """The ids that text can hold."""
        return [v for v in range(self.vocab_size) if v != self.mask_id]

    def keep_and_mix(self, t):
        """The share of untouched tokens [*N] and where the others go [*N V]; `t` may be complex."""
        t = np.asarray(t)
        n = len(self.clean)
        alpha = self.alpha(t)
        mask, uniform = np.zeros(self.vocab_size), np.zeros(self.vocab_size)
        mask[self.mask_id], uniform[self.clean] = 1, 1 / n
        if self.kind == "masking":
            return alpha, (1 - alpha)[..., None] * mask
        if self.kind == "uniform":
            return alpha, (1 - alpha)[..., None] * uniform
        time = 1 - alpha  # GIDD is written for α = 1 − t
        strength = 2 * self.uniform_share / (n * (1 - self.uniform_share))  # B = 2^γ p_u / (N (1 − p_u))
        c = strength * np.sqrt(time) * np.sqrt(1 - time)
        total = 1 + n * c
        mix = (time / total)[..., None] * mask + (n * c / total)[..., None] * uniform
        return (1 - time) / total, mix

    def matrix(self, t) -> np.ndarray:
        """Q_t[x, z] = q_t(z | x) [*N V V]; the mask's own row is what (1) says of it, for the Markov chain."""
        alpha, mix = self.keep_and_mix(t)
        return alpha[..., None, None] * np.eye(self.vocab_size) + mix[..., None, :]

    def transition(self, s: float, t: float) -> np.ndarray:
        """q(z_t | z_s) [V V], from Q_s M = Q_t."""
        return np.linalg.solve(self.matrix(s), self.matrix(t))

    def rates(self, t: float) -> np.ndarray:
        """The generator R_t[y, z] of the forward chain [V V], from dQ_t/dt = Q_t R_t (Kolmogorov), a complex step."""
        slope = self.matrix(t + 1e-30j).imag / 1e-30
        return np.linalg.solve(self.matrix(t), slope)


# ── texts ──────────────────────────────────────────────────────────────────────────────────────────────────────


def all_sequences(ids, length: int) -> np.ndarray:
    """Every sequence over `ids`, in lexicographic order [len(ids)^L L]."""
    return np.array(list(itertools.product(ids, repeat=length)), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Joint:
    """An explicit distribution over all texts of L clean tokens: texts [K L] with probabilities p [K]."""

    texts: np.ndarray
    p: np.ndarray

    @property
    def entropy(self) -> float:
        """In nats."""
        return float(-(self.p * np.log(self.p)).sum())


def random_joint(noise: Noise, length: int, *, seed: int, sharpness: float = 1.5) -> Joint:
    """Strongly dependent tokens: probabilities are exponentials of normal numbers."""
    texts = all_sequences(noise.clean, length)
    weights = np.exp(sharpness * np.random.default_rng(seed).standard_normal(len(texts)))
    return Joint(texts, weights / weights.sum())


def posteriors(joint: Joint, matrix: np.ndarray, z: np.ndarray, *, leave_out: bool) -> np.ndarray:
    """p(x_i = v | z without i), or p(x_i = v | z), by Bayes' rule over every text [B L V].

    `matrix` is Q_t of each row [B V V]. A z that cannot happen gets the uniform distribution over all ids.
    """
    rows, length = z.shape
    # like[b, k, j] = q(z_j | x_j) of text k
    like = matrix[np.arange(rows)[:, None, None], joint.texts[None], z[:, None, :]]
    result = np.zeros((rows, length, matrix.shape[-1]))
    for i in range(length):
        used = [j for j in range(length) if j != i or not leave_out]
        weight = joint.p * like[:, :, used].prod(-1)
        for v in range(matrix.shape[-1]):
            result[:, i, v] = weight[:, joint.texts[:, i] == v].sum(-1)
    total = result.sum(-1, keepdims=True)
    return np.where(total > 0, result / np.where(total > 0, total, 1), 1 / matrix.shape[-1])


def reverse_by_enumeration(joint: Joint, noise: Noise, z: np.ndarray, t: float, s: float) -> np.ndarray:
    """p(z_s^i | z_t = z) of each position, summing q(z_s | x, z_t) p(x | z_t) over every text [L V]."""
    q_s, q_t, move = noise.matrix(s), noise.matrix(t), noise.transition(s, t)
    weight = joint.p * q_t[joint.texts, z[None]].prod(-1)
    weight = weight / weight.sum()
    result = np.zeros((len(z), noise.vocab_size))
    for k, text in enumerate(joint.texts):
        for i, (x, here) in enumerate(zip(text, z, strict=True)):
            if weight[k] > 0:
                result[i] += weight[k] * q_s[x] * move[:, here] / q_t[x, here]
    return result


# ── objectives ─────────────────────────────────────────────────────────────────────────────────────────────────


def score_entropy(
    noise: Noise, logits: torch.Tensor, z: torch.Tensor, x: torch.Tensor, t: torch.Tensor
) -> torch.Tensor:
    """The integrand of SEDD's denoising score entropy (arXiv:2310.16834, equations 5 and 9), in nats a unit of time.

        Σ_{y ≠ z} R(y → z) · ( s_y − r_y log s_y + K(r_y) ),   r_y = q(y|x) / q(z|x),  K(a) = a (log a − 1),

    with the score s_y = q̂(y)/q̂(z) of the marginal q̂ = Σ_x p(x) q_t(· | x) that the logits predict. One position a row.
    """
    p = logits.index_fill(-1, torch.tensor([noise.mask_id]), -math.inf).softmax(-1)
    total = []
    for row in range(len(z)):
        at, here, text = float(t[row]), int(z[row]), int(x[row])
        matrix, rate = torch.tensor(noise.matrix(at)), noise.rates(at)
        marginal = p[row] @ matrix
        entropy = torch.zeros((), dtype=logits.dtype)
        for y in range(noise.vocab_size):
            ratio = float(matrix[text, y] / matrix[text, here])
            if y == here or rate[y, here] < 1e-14:
                continue
            score = marginal[y] / marginal[here]
            known = ratio * (math.log(ratio) - 1) - ratio * score.log() if ratio > 0 else 0.0
            entropy = entropy + rate[y, here] * (score + known)
        total.append(entropy)
    return torch.stack(total)


def smooth_times(count: int, *, start: float, end: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre times in (start, end) and weights of a mean over it, dense at both ends (t = u² (3 − 2u))."""
    u, weight = np.polynomial.legendre.leggauss(count)
    u, weight = (u + 1) / 2, weight / 2
    return start + (end - start) * u * u * (3 - 2 * u), weight * 6 * u * (1 - u)


def steer(noise: Noise, x: np.ndarray, z: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Uniform numbers [B L] that the quantile function of q_t(· | x) sends to z: the middle of their interval."""
    alpha, mix = noise.keep_and_mix(t)
    below = np.cumsum(mix, -1) - mix
    rows = np.arange(len(t))[:, None]
    return np.where(z == x, alpha[:, None] / 2, alpha[:, None] + below[rows, z] + mix[rows, z] / 2)


# ── laws of samplers and models ──────────────────────────────────────────────────────────────────────────────────


def product_law(per_position: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Probability of each state under independent positions: [* L V] and [S L] → [* S]."""
    return per_position[..., np.arange(states.shape[1]), states].prod(-1)


def reverse_chain_law(noise: Noise, predict: Callable, prior: np.ndarray, *, start: float, length: int, steps: int):
    """p(x) over V^L of the continuous-time reverse chain of a network, and the states [S], [S L].

    From t ≈ 1 with independent positions from `prior` [V], the chain leaves z for z with z_i := y at the rate
    R(y → z_i) · q̂_i(y) / q̂_i(z_i) (the time reversal of R under the predicted marginal), down to `start`; there each
    token is drawn from p(x_i | z) ∝ p_i(x_i) q(z_i | x_i). `predict(z [S L], t) → p [S L V]`.
    """
    states = all_sequences(range(noise.vocab_size), length)
    index = {tuple(state): k for k, state in enumerate(states)}
    # the target of a jump that writes y at position i
    target = np.array(
        [
            [[index[(*state[:i], y, *state[i + 1 :])] for y in range(noise.vocab_size)] for i in range(length)]
            for state in states
        ]
    )
    law = product_law(np.tile(prior, (length, 1)), states)
    u = np.linspace(0, 1, steps + 1)
    grid = (1 - 1e-6) + (start - (1 - 1e-6)) * u * u * (3 - 2 * u)
    here = np.arange(len(states))
    for t, s in itertools.pairwise(grid):
        middle = (t + s) / 2
        marginal = predict(states, middle) @ noise.matrix(middle)
        rate = noise.rates(middle).T[states]  # [S L V]: from each y into z_i
        at = np.take_along_axis(marginal, states[..., None], -1)
        with np.errstate(divide="ignore", invalid="ignore"):
            jump = np.where(at > 0, np.clip(rate, 0, None) * marginal / at, 0)
        np.put_along_axis(jump, states[..., None], 0.0, -1)
        flow = np.zeros((len(states), len(states)))
        np.add.at(flow, (here[:, None, None], target), jump)
        flow[here, here] -= flow.sum(1)
        law = law @ expm(flow * (t - s))
    final = predict(states, start) * noise.matrix(start).T[states]
    total = final.sum(-1, keepdims=True)
    final = np.where(total > 0, final / np.where(total > 0, total, 1), 1 / noise.vocab_size)
    return law @ product_law(final, states), states


def random_order_law(predict: Callable, mask_id: int, texts: np.ndarray) -> np.ndarray:
    """p(x) of revealing one masked position a step, uniformly chosen, by the recursion over revealed sets S

    f(S) = |S|⁻¹ Σ_{i ∈ S} f(S without i) · p(x_i | x revealed on S without i),   f(∅) = 1,   p(x) = f(all).
    """
    length = texts.shape[1]
    law = {frozenset(): np.ones(len(texts))}
    for size in range(1, length + 1):
        for chosen in itertools.combinations(range(length), size):
            total = np.zeros(len(texts))
            for i in chosen:
                before = [j for j in chosen if j != i]
                z = np.full_like(texts, mask_id)
                z[:, before] = texts[:, before]
                p = predict(z)[np.arange(len(texts)), i, texts[:, i]]
                total += law[frozenset(before)] * p / size
            law[frozenset(chosen)] = total
    return law[frozenset(range(length))]


def revealing_law(
    predict: Callable,
    time: Callable,
    mask_id: int,
    texts: np.ndarray,
    *,
    free: list[int],
    steps: int,
    blocks: list[list[int]],
    pick: Callable,
) -> np.ndarray:
    """P(x | what is not free) of a sampler that reveals each block of a row in `steps` rounds, text by text.

    Round k of a block of n free places reveals ⌊(k + 1) n / K⌋ − ⌊k n / K⌋ of them, the first in the order of `pick`,
    drawn independently of each other: P(x) = Π_k Π_{i in round k} p(x_i | what is revealed before round k).

    Args:
        predict: (z [1 L], t) → p [1 L V].
        time: the share of free places that are revealed → t.
        mask_id: hides a token.
        texts: [N L].
        free: places that are drawn; the texts' own tokens stand at the others.
        steps: K.
        blocks: places of each block, from left to right.
        pick: (hidden places, p [L V]) → the same places, those that go first in front.
    """
    law = np.ones(len(texts))
    for row, text in enumerate(texts):
        z = np.array([mask_id if i in free else token for i, token in enumerate(text)])
        hidden = list(free)
        for block in blocks:
            size = len([i for i in block if i in free])
            for k in range(steps):
                count = (k + 1) * size // steps - k * size // steps
                p = predict(z[None], time(1 - len(hidden) / len(free)))[0]
                chosen = pick([i for i in block if i in hidden], p)[:count]
                for i in chosen:
                    law[row] *= p[i, text[i]]
                for i in chosen:
                    z[i] = text[i]
                    hidden.remove(i)
    return law


# ── statistics ─────────────────────────────────────────────────────────────────────────────────────────────────


def chi_squared(drawn: np.ndarray, outcomes: np.ndarray, p: np.ndarray) -> float:
    """The p-value of χ² for draws [N L] against probabilities p [K] of outcomes [K L]; 0 for an impossible draw.

    Outcomes with fewer than 5 expected draws are put together.
    """
    index = {tuple(outcome): k for k, outcome in enumerate(outcomes)}
    counts = np.zeros(len(outcomes))
    for outcome, count in zip(*np.unique(drawn, axis=0, return_counts=True), strict=True):
        if tuple(outcome) not in index:
            return 0.0
        counts[index[tuple(outcome)]] = count
    if counts[p <= 0].any():
        return 0.0
    expected = p * len(drawn)
    rare = expected < 5
    counts = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    kept = expected > 0
    if kept.sum() < 2:
        return 1.0
    return float(stats.chisquare(counts[kept], expected[kept] * counts.sum() / expected.sum()).pvalue)


def total_variation(p: np.ndarray, q: np.ndarray) -> float:
    """Half the sum of absolute differences."""
    return float(np.abs(p - q).sum() / 2)
