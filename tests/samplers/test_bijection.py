"""The bijection between noise and text: its likelihood by enumeration, both directions, its Jacobian, and its law."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.optimize import brentq

from doubles import Constant, Double, Posterior, Table, make_noise, make_process
from exact import SCHEDULES, all_sequences, chi_squared, random_joint, revealing_law
from remask import orders
from remask.orders import FixedOrder, SureFirst
from remask.randomness import keyed_generator
from remask.samplers import Bijection, Prompt, bijective, blank_prompt, entropy, margin
from remask.samplers import bijection as bijection_module
from remask.samplers.transforms import reshape_distribution
from remask.schedules import time_grid

CLEAN, MASK, LENGTH = [0, 2, 3, 4], 1, 4
TEXTS = all_sequences(CLEAN, LENGTH)
X = torch.from_numpy(TEXTS)
FREE = torch.ones_like(X, dtype=torch.bool)
SHUFFLED = orders.random_permutation(5)(LENGTH, torch.device("cpu")).tolist()
REVEALS = {
    "left_to_right": FixedOrder(orders.left_to_right),
    "spread": FixedOrder(orders.spread),
    "random": FixedOrder(orders.random_permutation(5)),
    "confidence": SureFirst(orders.largest_probability),
    "margin": SureFirst(orders.top_gap),
    "entropy": SureFirst(orders.negative_entropy),
}
EVERY_ORDER = pytest.mark.parametrize("reveal", REVEALS)
PICKS = {
    "left_to_right": lambda hidden, p: sorted(hidden),
    "spread": lambda hidden, p: sorted(hidden, key=[0, 2, 1, 3].index),
    "random": lambda hidden, p: sorted(hidden, key=SHUFFLED.__getitem__),
    "confidence": lambda hidden, p: sorted(hidden, key=lambda i: -p[i].max()),
    "margin": lambda hidden, p: sorted(hidden, key=lambda i: np.sort(p[i])[-2] - np.sort(p[i])[-1]),
    "entropy": lambda hidden, p: sorted(hidden, key=lambda i: -(p[i] * np.log(np.where(p[i] > 0, p[i], 1))).sum()),
}
SCHEMES = [(1, None), (2, None), (3, None), (4, None), (1, 1), (1, 2), (2, 2), (2, 3)]
"""(rounds, block length)."""
CUTS = {None: [[0, 1, 2, 3]], 1: [[0], [1], [2], [3]], 2: [[0, 1], [2, 3]], 3: [[0, 1, 2], [3]]}


def table(*, schedule: str = "cosine", seed: int = 1, scale: float = 1.0) -> Table:
    """A wrong network that reads every token and the time."""
    process = make_process("masking", schedule, vocab_size=5, mask_id=MASK)
    return Table(process, LENGTH, seed=seed, scale=scale)


def bijection(reveal: str, *, steps: int, model: Double | None = None, **others) -> Bijection:
    return Bijection(model=model or table(), order=REVEALS[reveal], steps=steps, **others)


def uniform(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(shape, generator=keyed_generator(seed), dtype=torch.float64)


def without(places: list[int]) -> torch.Tensor:
    free = FREE.clone()
    free[:, places] = False
    return free


def law(chosen: Bijection, free: torch.Tensor = FREE) -> torch.Tensor:
    """P of every text, given its other places."""
    return (-chosen.nats(X, free).sum(-1)).exp()


# ── a likelihood ───────────────────────────────────────────────────────────────────────────────────────────────


@EVERY_ORDER
@pytest.mark.parametrize(("steps", "block"), [*SCHEMES, (7, None)])
def test_probabilities_of_all_texts_sum_to_one(reveal, steps, block):
    assert float(law(bijection(reveal, steps=steps, block_length=block)).sum()) == pytest.approx(1, abs=1e-10)


@EVERY_ORDER
@pytest.mark.parametrize("given", [[0], [1, 3]], ids=["prefix", "gap"])
def test_probabilities_given_a_prompt_sum_to_one_for_each_prompt(reveal, given):
    p = law(bijection(reveal, steps=2, block_length=3 if len(given) == 1 else None), without(given))
    sums = dict.fromkeys(itertools.product(CLEAN, repeat=len(given)), 0.0)
    for text, value in zip(TEXTS.tolist(), p.tolist(), strict=True):
        sums[tuple(text[i] for i in given)] += value
    assert max(abs(total - 1) for total in sums.values()) < 1e-10


@EVERY_ORDER
@pytest.mark.parametrize(("schedule", "given"), [("polynomial", []), ("log_linear", [2])])
def test_it_is_the_probability_of_the_sampler_as_it_is_defined(reveal, schedule, given):
    model = table(schedule=schedule, seed=2)
    some = np.arange(0, len(TEXTS), 50)
    at_end = float(SCHEDULES[schedule](1.0))

    def time(share: float) -> float:
        if share <= at_end:
            return 1.0
        return float(brentq(lambda t: SCHEDULES[schedule](t) - share, 0, 1, xtol=1e-15))

    for steps, block in [(2, None), (3, None), (4, None), (1, 2)]:
        nats = bijection(reveal, steps=steps, block_length=block, model=model).nats(X[some], without(given)[some])
        expected = revealing_law(
            model.probabilities,
            time,
            MASK,
            TEXTS[some],
            free=[i for i in range(LENGTH) if i not in given],
            steps=steps,
            blocks=CUTS[block],
            pick=PICKS[reveal],
        )
        np.testing.assert_allclose(nats.sum(-1).numpy(), -np.log(expected), rtol=0, atol=1e-10)
        assert bool((nats[:, given] == 0).all())


def test_a_constant_predictor_pays_exactly_log_v_a_token():
    model = Constant(make_process("masking", "linear", vocab_size=5))
    for reveal in ("random", "entropy"):
        nats = bijection(reveal, steps=3, model=model).nats(X, without([2]))
        torch.testing.assert_close(nats, math.log(4) * without([2]).double(), rtol=0, atol=1e-15)


def test_one_token_a_round_under_the_true_posterior_is_the_data_s_own_probability():
    """Whatever the order, the chain rule holds; with two tokens a round it does not."""
    noise = make_noise("masking", "linear")
    joint = random_joint(noise, 3, seed=3)
    model = Posterior(make_process("masking", "linear"), noise, joint)
    x, free = torch.from_numpy(joint.texts), torch.ones(joint.texts.shape, dtype=torch.bool)
    for reveal in ("left_to_right", "spread", "entropy"):
        one = bijection(reveal, steps=3, model=model).nats(x, free).sum(-1).numpy()
        np.testing.assert_allclose(one, -np.log(joint.p), atol=1e-10)
        two = bijection(reveal, steps=2, model=model).nats(x, free).sum(-1).numpy()
        assert np.abs(two + np.log(joint.p)).max() > 0.1


# ── what must fail ─────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Peeking:
    """Reveals first the place whose true token is likeliest: the order depends on what is not revealed yet."""

    x: torch.Tensor

    def wanted(self, hidden, count):
        return hidden & (count > 0)[:, None]

    def choose(self, log_p, wanted, hidden, count):
        of_truth = torch.full(hidden.shape, torch.inf, dtype=torch.float64)
        of_truth[wanted] = -log_p.gather(-1, self.x[wanted][:, None]).squeeze(-1)
        return orders.first(of_truth, hidden, count)


def test_an_order_that_peeks_at_the_true_tokens_has_probabilities_that_sum_to_more_than_one():
    model = table(scale=1.5)
    honest = law(Bijection(model=model, order=SureFirst(orders.largest_probability), steps=LENGTH))
    peeking = law(Bijection(model=model, order=Peeking(X), steps=LENGTH))
    assert float(honest.sum()) == pytest.approx(1, abs=1e-10)
    assert float(peeking.sum()) > 4


def test_the_product_of_probabilities_given_the_clean_text_sums_to_far_more_than_one():
    """Each token predicted from all the others, as if one call were a likelihood; then from itself too."""
    noise = make_noise("masking", "linear")
    joint = random_joint(noise, 4, seed=1, sharpness=3.0)
    x = torch.from_numpy(joint.texts)
    sums = []
    for leave_out in (True, False):
        model = Posterior(make_process("masking", "linear"), noise, joint, leave_out=leave_out)
        p = model.predict(x, torch.full((len(x),), 0.5, dtype=torch.float64)).exp()
        sums.append(float(p.gather(-1, x[..., None]).squeeze(-1).prod(-1).sum()))
    assert sums[0] > 5
    assert sums[1] == pytest.approx(3**4), "a network that sees the token itself: 1 for every text"


# ── both directions ────────────────────────────────────────────────────────────────────────────────────────────


@EVERY_ORDER
@pytest.mark.parametrize(("steps", "block"), [(1, None), (3, None), (2, 3)])
def test_decoding_undoes_encoding_and_encoding_undoes_decoding(reveal, steps, block):
    chosen, free = bijection(reveal, steps=steps, block_length=block), without([1])
    w = uniform(*X.shape) * free
    encoded = chosen.encode(X, free, within=w)
    decoded = chosen.decode(encoded.noise, Prompt(ids=X, fixed=~free))
    assert torch.equal(decoded.ids, X)
    # u has 53 bits, so a place within a share of width p is known to 1e-16 / p; here to 1e-12 where p is above 1e-3
    error, p = (decoded.within - w).abs(), (-encoded.nats).exp()
    assert float((error * p).max()) < 1e-15
    assert float(error[p > 1e-3].max()) < 1e-12
    torch.testing.assert_close(decoded.nats, encoded.nats, rtol=0, atol=0)
    torch.testing.assert_close(encoded.nats, chosen.nats(X, free), rtol=0, atol=0)
    u = uniform(*X.shape, seed=2) * free
    drawn = chosen.decode(u, Prompt(ids=X, fixed=~free))
    again = chosen.encode(drawn.ids, free, within=drawn.within)
    torch.testing.assert_close(again.noise, u, rtol=0, atol=1e-14)


@EVERY_ORDER
def test_the_ends_of_every_text_s_share_decode_to_it(reveal):
    """So that the shares tile [0, 1)^L: their volumes are the probabilities, which sum to 1."""
    chosen = bijection(reveal, steps=2)
    for w in (0.0, 1.0 - 2.0**-53):
        noise = chosen.encode(X, FREE, within=torch.full(X.shape, w, dtype=torch.float64)).noise
        assert torch.equal(chosen.decode(noise, blank_prompt(*X.shape)).ids, X)


@EVERY_ORDER
@pytest.mark.parametrize("steps", [1, 2])
def test_the_log_determinant_of_the_map_is_the_log_probability(reveal, steps):
    """∂u/∂w by differences of the whole map, which is linear in w at a fixed text."""
    chosen, x, free = bijection(reveal, steps=steps), X[37:38], FREE[37:38]
    w = torch.full(x.shape, 0.25, dtype=torch.float64)
    start = chosen.encode(x, free, within=w).noise[0]
    columns = [
        (chosen.encode(x, free, within=w + 0.5 * torch.eye(LENGTH)[i].double()).noise[0] - start) / 0.5
        for i in range(LENGTH)
    ]
    sign, log_determinant = torch.linalg.slogdet(torch.stack(columns, 1))
    assert sign == 1
    torch.testing.assert_close(log_determinant, -chosen.nats(x, free).sum(), rtol=0, atol=1e-10)


def test_the_noise_of_texts_of_the_law_is_uniform_and_that_of_other_texts_is_not():
    chosen, count = bijection("spread", steps=2, model=table(scale=1.5)), 3000
    drawn = chosen.decode(uniform(count, LENGTH), blank_prompt(count, LENGTH)).ids
    other = torch.tensor(CLEAN)[torch.randint(4, (count, LENGTH), generator=keyed_generator(8))]
    w, free = uniform(count, LENGTH, seed=3), torch.ones(count, LENGTH, dtype=torch.bool)
    own, foreign = (chosen.encode(x, free, within=w).noise.flatten().numpy() for x in (drawn, other))
    assert stats.kstest(own, "uniform").pvalue > 1e-4
    assert stats.kstest(foreign, "uniform").pvalue < 1e-4


# ── the law of the draws ───────────────────────────────────────────────────────────────────────────────────────


@EVERY_ORDER
def test_decoded_uniform_noise_has_the_law_that_the_likelihood_says(reveal):
    """Three rounds of 1, 1 and 2 tokens, so that an order that asks the model has something to choose by."""
    model = table(scale=1.5)
    chosen = bijection(reveal, steps=3, model=model)
    prompt, grid = blank_prompt(6000, LENGTH), time_grid(3)
    drawn = bijective(model, grid, order=chosen.order, prompt=prompt, generator=keyed_generator(4)).numpy()
    assert chi_squared(drawn, TEXTS, law(chosen).numpy()) > 1e-4
    assert chi_squared(drawn, TEXTS, law(bijection(reveal, steps=2, model=model)).numpy()) < 1e-4


@pytest.mark.parametrize(("walk", "reveal"), [(margin, "margin"), (entropy, "entropy")])
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_ranked_samplers_have_the_law_of_the_bijection_of_their_order(walk, reveal, steps):
    """The same counts a round where K divides L, the same times under a linear schedule."""
    model = table(schedule="linear", scale=1.5)
    drawn = walk(model, time_grid(steps), prompt=blank_prompt(6000, LENGTH), generator=keyed_generator(6)).numpy()
    assert chi_squared(drawn, TEXTS, law(bijection(reveal, steps=steps, model=model)).numpy()) > 1e-4
    other = law(bijection("left_to_right", steps=steps if steps > 1 else 2, model=model)).numpy()
    assert chi_squared(drawn, TEXTS, other) < 1e-4


def test_temperature_sharpens_the_law_and_leaves_it_a_likelihood():
    plain = bijection("margin", steps=2)
    cold = bijection("margin", steps=2, transform=reshape_distribution(temperature=0.5, top_p=1.0))
    p, sharp = law(plain), law(cold)
    assert float(sharp.sum()) == pytest.approx(1, abs=1e-10)
    assert float((sharp * sharp.log()).sum()) > float((p * p.log()).sum()) + 0.1


# ── what the network is asked ──────────────────────────────────────────────────────────────────────────────────


class Asked(Table):
    """Counts the places whose logits were wanted."""

    def logits(self, z, t, *, positions):
        self.places = getattr(self, "places", 0) + int(positions.sum())
        return super().logits(z, t, positions=positions)


@pytest.mark.parametrize("reveal", ["random", "margin"])
@pytest.mark.parametrize(("steps", "block", "calls"), [(1, None, 1), (3, None, 3), (9, None, 4), (2, 2, 4), (3, 2, 4)])
def test_each_round_that_reveals_anything_is_one_network_call(reveal, steps, block, calls):
    model = Asked(make_process("masking", "linear", vocab_size=5), LENGTH, seed=1)
    chosen = bijection(reveal, steps=steps, block_length=block, model=model)
    noise = chosen.encode(X, FREE, within=uniform(*X.shape)).noise
    assert model.calls == calls
    chosen.nats(X, FREE)
    chosen.decode(noise, blank_prompt(*X.shape))
    assert model.calls == 3 * calls
    if isinstance(chosen.order, FixedOrder):
        assert model.places == 3 * X.numel(), "the vocabulary projection runs once a token"


def test_given_tokens_are_seen_and_kept_and_nothing_is_asked_without_a_free_place():
    model = Asked(make_process("masking", "linear", vocab_size=5), LENGTH, seed=1)
    chosen = bijection("margin", steps=2, model=model)
    decoded = chosen.decode(uniform(*X.shape), Prompt(ids=X, fixed=~without([0, 3])))
    assert torch.equal(decoded.ids[:, [0, 3]], X[:, [0, 3]])
    assert not bool((decoded.ids == MASK).any())
    model.calls = 0
    assert torch.equal(chosen.decode(uniform(*X.shape), Prompt(ids=X, fixed=FREE)).ids, X)
    assert model.calls == 0


@pytest.mark.parametrize("reveal", ["random", "margin"])
def test_a_block_that_is_cut_into_parts_gives_the_same(reveal, monkeypatch):
    chosen, w = bijection(reveal, steps=2), uniform(*X.shape)
    whole = chosen.encode(X, FREE, within=w)
    for module in (bijection_module, orders):
        monkeypatch.setattr(module, "NUMBERS_AT_ONCE", 35)
    parts = chosen.encode(X, FREE, within=w)
    assert torch.equal(parts.noise, whole.noise)
    assert torch.equal(chosen.nats(X, FREE), whole.nats)
    assert torch.equal(chosen.decode(parts.noise, blank_prompt(*X.shape)).ids, X)


@EVERY_ORDER
def test_a_million_rounds_are_one_a_token(reveal):
    assert torch.equal(bijection(reveal, steps=10**6).nats(X, FREE), bijection(reveal, steps=LENGTH).nats(X, FREE))


def test_frames_show_the_masks_go_round_by_round():
    frames = []
    chosen = bijection("spread", steps=2)
    chosen.decode(uniform(*X.shape), blank_prompt(*X.shape), on_step=frames.append)
    assert [(frame.step, frame.t, int((frame.z[0] == MASK).sum())) for frame in frames] == [
        (0, 1.0, 4),
        (1, 0.5, 2),
        (2, 0.0, 0),
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"steps": 0}, "steps: 0 was given"),
        ({"block_length": 0}, "block_length: 0 was given"),
        ({"model": Constant(make_process("uniform", "linear"))}, "a model of Uniform noise was given"),
        ({"model": Constant(make_process("hybrid", "linear"))}, "a model of Hybrid noise was given"),
    ],
)
def test_what_is_no_bijection_is_refused(given, said):
    with pytest.raises(ValueError, match=said):
        bijection("random", **({"steps": 1} | given))


# ── at the size of a model ─────────────────────────────────────────────────────────────────────────────────────


class Float32(Double):
    """Sharp random logits over 1000 tokens in float32, from both neighbours and the place."""

    def __init__(self) -> None:
        super().__init__(make_process("masking", "linear", vocab_size=1001, mask_id=1000))
        generator = keyed_generator(1)
        self.left, self.right = (2.5 * torch.randn(1001, 1001, generator=generator) for _ in range(2))

    def predict(self, z, t):
        del t
        return self.left[z.roll(1, -1)] + self.right[z.roll(-1, -1)]


@pytest.mark.parametrize("reveal", ["spread", "margin"])
def test_a_thousand_rows_return_exactly_from_a_float32_network(reveal):
    chosen = bijection(reveal, steps=2, model=Float32())
    rows = torch.randint(1000, (1000, 6), generator=keyed_generator(2))
    free = torch.ones_like(rows, dtype=torch.bool)
    encoded = chosen.encode(rows, free, within=uniform(1000, 6))
    assert encoded.noise.dtype == torch.float64
    back = chosen.decode(encoded.noise, blank_prompt(1000, 6)).ids
    assert int((back != rows).sum()) == 0
    assert float((-encoded.nats).exp().min()) < 1e-6, "tokens among them that float32 noise could not tell apart"
