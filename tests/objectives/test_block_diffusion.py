"""Block diffusion between its two known ends, by enumeration: the chain rule and ordinary diffusion.

Letters: B rows, L length, K blocks a row, V ids.
"""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from doubles import KINDS, Constant, Double, Posterior, Table, full_batch, make_noise, make_process
from exact import all_sequences, random_joint, random_order_law, smooth_times
from remask.data.batch import Batch
from remask.objectives import BlockDiffusion, LikelihoodBound, generic_integrand, masking_integrand
from remask.objectives.block_diffusion import shuffled
from remask.objectives.likelihood import rising_range
from remask.objectives.noisy import WantedRows
from remask.randomness import keyed_generator

pytestmark = pytest.mark.usefixtures("global_generator_untouched")


class BlockView:
    """A block network as sampling sees it: each block asks `inner` with clean text before it and masks after it."""

    def __init__(self, inner: Double, block_length: int) -> None:
        self.inner, self.block_length, self.calls = inner, block_length, 0
        self.shown: list[dict] = []

    def seen(self, z, context, start):
        hidden = torch.full_like(z[:, start + self.block_length :], self.inner.mask_id)
        return torch.cat([context[:, :start], z[:, start : start + self.block_length], hidden], 1)

    def __call__(self, z, t, *, segments, positions, context=None):
        assert segments.shape == z.shape == positions.shape == context.shape
        self.calls += 1
        self.shown.append({"z": z, "t": t, "context": context})
        half = torch.full((len(z),), 0.5, dtype=torch.float64)
        answers = [
            self.inner.predict(self.seen(z, context, start), half)[:, start : start + self.block_length]
            for start in range(0, z.shape[1], self.block_length)
        ]
        return torch.cat(answers, 1)[positions]


class Peeking(BlockView):
    """Reads the clean text of the very block it is asked about, as a mask wrong by one block would let it."""

    def __call__(self, z, t, *, segments, positions, context=None):
        honest = super().__call__(z, t, segments=segments, positions=positions, context=context)
        truth = torch.nn.functional.one_hot(context[positions], honest.shape[-1]).double()
        return torch.logaddexp(honest.log_softmax(-1), truth.log()) if len(honest) else honest


def block_objective(block_length: int, *, kind: str = "masking", schedule: str = "linear", t_min: float = 1e-3):
    integrand = masking_integrand if kind == "masking" else generic_integrand
    bound = LikelihoodBound(process=make_process(kind, schedule), integrand=integrand, t_min=t_min)
    return BlockDiffusion(bound=bound, block_length=block_length)


def exact_terms(objective: BlockDiffusion, network, texts: np.ndarray, *, times: int = 20) -> dict[str, np.ndarray]:
    """The terms of each text [n] for masking noise, through the real code.

    Every pattern of masks of one block at every time of a quadrature is put into all blocks of a row at once: blocks
    are independent given the text, so each block's sum over patterns is its own mean.
    """
    bound, parts = objective.bound, texts.shape[1] // objective.block_length
    patterns = np.array(list(itertools.product([False, True], repeat=objective.block_length)))

    def mean(estimate, nodes: np.ndarray, weights: np.ndarray) -> np.ndarray:
        cases = list(itertools.product(range(len(texts)), range(len(nodes)), range(len(patterns))))
        text, node, pattern = (np.array(column) for column in zip(*cases, strict=True))
        alpha = bound.process.schedule.alpha(torch.from_numpy(nodes)).numpy()[node][:, None]
        hidden = patterns[pattern]
        chance = np.where(hidden, 1 - alpha, alpha).prod(-1)
        noise = np.tile(np.where(hidden, (1 + alpha) / 2, alpha / 2), (1, parts)).reshape(-1, objective.block_length)
        rows = full_batch(texts[text])
        t = torch.from_numpy(np.repeat(nodes[node], parts))
        nats = estimate(objective.fold(network, rows), objective.blocks(rows), t, torch.from_numpy(noise))
        share = weights[node] * chance * nats.reshape(len(rows), -1).sum(-1).numpy()
        return np.bincount(text, share, minlength=len(texts))

    nodes, weights = smooth_times(times, start=bound.t_min)
    prior = bound.process.prior_divergence(torch.from_numpy(texts), like=torch.zeros((), dtype=torch.float64))
    return {
        "diffusion": mean(lambda n, b, t, u: bound.diffusion(n, b, t=t, noise=u), nodes, weights),
        "reconstruction": mean(
            lambda n, b, t, u: bound.reconstruction(n, b, noise=u), np.array([bound.t_min]), np.ones(1)
        ),
        "prior": prior.sum(-1).numpy(),
    }


def block_law(view: BlockView, texts: np.ndarray) -> np.ndarray:
    """p(x) of drawing blocks left to right, one masked token at a time in random order within a block [n]."""
    step, law = view.block_length, np.ones(len(texts))
    for start in range(0, texts.shape[1], step):
        inside = slice(start, start + step)

        def predict(z: np.ndarray, start=start, inside=inside) -> np.ndarray:
            whole = np.concatenate([texts[:, :start], z, np.zeros_like(texts[:, start + step :])], 1)
            whole = torch.from_numpy(whole)
            seen = view.seen(whole, whole, start)
            return view.inner.probabilities(seen.numpy(), 0.5)[:, inside]

        law = law * random_order_law(predict, view.inner.mask_id, texts[:, inside])
    return law


# ── the two ends ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_blocks_of_one_token_are_the_chain_rule(schedule):
    """The mean of the bound is −log p(x) itself, for every text and any network."""
    objective = block_objective(1, schedule=schedule)
    view = BlockView(Table(objective.bound.process, 3, seed=2, scale=0.5), 1)
    texts = all_sequences([0, 2, 3], 3)
    terms = exact_terms(objective, view, texts, times=40)
    law = block_law(view, texts)
    assert law.sum() == pytest.approx(1, abs=1e-10)
    np.testing.assert_allclose(sum(terms.values()), -np.log(law), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_one_block_a_row_is_ordinary_diffusion_to_the_last_bit(kind):
    objective = block_objective(4, kind=kind, t_min=0.05)
    table = Table(objective.bound.process, 4, seed=2)
    timeless = replace_drift(table)
    batch = full_batch([[0, 3, 2, 2], [3, 3, 0, 2]] * 3)
    ours = objective(BlockView(timeless, 4), batch, generator=keyed_generator(1))
    theirs = objective.bound(timeless, batch, generator=keyed_generator(1))
    assert torch.equal(ours.nats, theirs.nats)
    assert torch.equal(ours.weight, theirs.weight)
    assert float(ours.terms["diffusion"]) == float(theirs.terms["diffusion"])
    ours, theirs = (
        each.likelihood_terms(network, batch, generator=keyed_generator(1), draws=3)
        for each, network in ((objective, BlockView(timeless, 4)), (objective.bound, timeless))
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def replace_drift(table: Table) -> Table:
    """The table without its dependence on time."""
    table.drift = torch.zeros_like(table.drift)
    return table


# ── the bound ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("block_length", [1, 2, 4])
def test_the_true_posterior_reaches_the_entropy_of_the_data(block_length):
    objective = block_objective(block_length)
    noise = make_noise("masking", "linear")
    joint = random_joint(noise, 4, seed=11)
    view = BlockView(Posterior(objective.bound.process, noise, joint), block_length)
    mean = joint.p @ sum(exact_terms(objective, view, joint.texts, times=8).values())
    assert mean == pytest.approx(joint.entropy, abs=2e-5)


@pytest.mark.parametrize("block_length", [2, 4])
def test_the_bound_lies_above_minus_log_p_of_the_block_wise_sampler_for_every_text(block_length):
    objective = block_objective(block_length)
    view = BlockView(Table(objective.bound.process, 4, seed=3, scale=0.7), block_length)
    texts = all_sequences([0, 2, 3], 4)
    gap = sum(exact_terms(objective, view, texts, times=8).values()) + np.log(block_law(view, texts))
    assert (gap > 0).all()
    assert gap.max() > 0.01


def test_a_network_that_sees_its_own_block_clean_is_found_out():
    """The negative: its "bound" is below the entropy, so that the test above would fail."""
    objective = block_objective(2)
    noise = make_noise("masking", "linear")
    joint = random_joint(noise, 4, seed=11)
    network = Peeking(Posterior(objective.bound.process, noise, joint), 2)
    assert joint.p @ sum(exact_terms(objective, network, joint.texts, times=8).values()) < joint.entropy - 0.5


def test_drawn_terms_and_the_training_loss_have_the_enumerated_means():
    objective = block_objective(2, t_min=0.05)
    view = BlockView(Table(objective.bound.process, 4, seed=2, scale=0.5), 2)
    text = np.array([[0, 3, 2, 2]])
    exact = exact_terms(objective, view, text)
    batch = full_batch(np.tile(text, (6000, 1)))
    drawn = objective.likelihood_terms(view, batch, generator=keyed_generator(1), draws=2)
    drawn["training"] = objective(view, batch, generator=keyed_generator(2)).nats
    for name, term in {**exact, "training": exact["diffusion"]}.items():
        rows = drawn[name].sum(-1)
        spread = 4.5 * float(rows.std()) / len(rows) ** 0.5 + 1e-9
        assert float(rows.mean()) == pytest.approx(float(term[0]), abs=spread), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_predictor_gets_log_n_a_token(kind):
    objective = block_objective(2, kind=kind)
    batch = full_batch([[0, 3, 2, 2]] * 400)
    network = BlockView(Constant(objective.bound.process), 2)
    terms = objective.likelihood_terms(network, batch, generator=keyed_generator(1), draws=16)
    rows = sum(terms.values()).sum(-1)
    assert float(rows.mean()) == pytest.approx(4 * np.log(3), abs=4.5 * float(rows.std()) / 20)


# ── the objective as it is used ────────────────────────────────────────────────────────────────────────────────


def drawn_times(objective: BlockDiffusion, batch: Batch, seed: int) -> torch.Tensor:
    """The times of each block [B K] in one training step."""
    drawn = []

    def watch(t):
        drawn.append(t)
        return torch.ones_like(t)

    watching = replace(objective, bound=replace(objective.bound, reweight=watch))
    network = BlockView(Constant(objective.bound.process), objective.block_length)
    watching(network, batch, generator=keyed_generator(seed))
    return drawn[0].reshape(len(batch), -1)


def test_times_are_stratified_over_all_blocks_and_uniform_at_each_place():
    objective = block_objective(2, t_min=1e-9)
    batch = full_batch([[0, 3, 2, 2, 0, 0, 3, 2]] * 2)
    times = torch.stack([drawn_times(objective, batch, seed) for seed in range(300)])
    strata = (times * 8).long().flatten(1)
    assert torch.equal(strata.sort(-1).values, torch.arange(8).expand(300, 8))
    counts = torch.stack([(strata == k).sum(0) for k in range(8)])
    assert (counts - 300 / 8).abs().max() < 4.5 * (300 / 8) ** 0.5
    in_place = objective.blocks(batch)
    assert in_place.rows.tolist() == list(range(8))
    moved = shuffled(in_place, parts=4, generator=keyed_generator(1)).rows
    assert sorted(moved.tolist()) == list(range(8))
    assert moved.tolist() != list(range(8))


def test_the_network_sees_clean_context_no_time_and_one_call():
    objective = block_objective(2, t_min=0.05)
    view = BlockView(Constant(objective.bound.process), 2)
    batch = full_batch([[0, 3, 2, 2]] * 8)
    objective(view, batch, generator=keyed_generator(1))
    assert view.calls == 1
    shown = view.shown[0]
    assert torch.equal(shown["context"], batch.ids)
    assert shown["t"].tolist() == [0.0] * 8
    assert shown["z"].shape == batch.ids.shape
    assert (shown["z"] == 1).any()


@pytest.mark.parametrize("parts", [[4, 4], [1, 5, 2]])
def test_losses_do_not_depend_on_micro_batches(parts):
    objective = block_objective(2, t_min=0.05)
    view = BlockView(Table(objective.bound.process, 4, seed=2), 2)
    ids = torch.tensor([0, 2, 3])[torch.randint(3, (8, 4), generator=keyed_generator(5))]
    whole = objective(view, full_batch(ids), generator=keyed_generator(1)).nats
    starts = [0, *itertools.accumulate(parts)]
    pieces = [
        objective(view, full_batch(ids[a:b], rows=range(a, b), global_size=8), generator=keyed_generator(1)).nats
        for a, b in itertools.pairwise(starts)
    ]
    assert torch.equal(whole, torch.cat(pieces))


def test_curriculum_and_time_range_cut_training_short_and_never_a_likelihood():
    plain = block_objective(2, t_min=0.05)
    rising = replace(plain, bound=replace(plain.bound, curriculum=rising_range(start=0.3, steps=4)))
    clipped = replace(plain, t_range=(0.4, 0.8))
    batch = full_batch([[0, 3, 2, 2]] * 50)
    view = BlockView(Table(plain.bound.process, 4, seed=2), 2)
    assert drawn_times(rising.at(1), batch, 1).max() < 0.3
    assert 0.4 <= drawn_times(clipped, batch, 1).min() < 0.41
    assert 0.79 < drawn_times(clipped, batch, 1).max() < 0.8
    assert "diffusion" in plain(view, batch, generator=keyed_generator(1)).terms
    whole = plain.likelihood_terms(view, batch, generator=keyed_generator(1), draws=2)
    for short in (rising.at(1), clipped, replace(plain, t_range=(0.4, 1.0))):
        loss = short(view, batch, generator=keyed_generator(1))
        assert "diffusion" not in loss.terms, "a cut-short loss is no estimate of the likelihood"
        cut = short.likelihood_terms(view, batch, generator=keyed_generator(1), draws=2)
        assert all(torch.equal(whole[name], cut[name]) for name in whole)
    assert rising.at(9).bound.t_max == 1.0
    assert plain.exact is False


def test_only_targets_are_hidden_and_counted():
    targets = torch.tensor([[False, True, True, True, False, False]] * 20)
    batch = replace(full_batch([[3, 2, 0, 2, 0, 0]] * 20), targets=targets)
    objective = block_objective(2, t_min=0.05)
    view = BlockView(Constant(objective.bound.process), 2)
    loss = objective(view, batch, generator=keyed_generator(1))
    terms = objective.likelihood_terms(view, batch, generator=keyed_generator(1), draws=2)
    for shown in view.shown:
        assert (shown["z"][~targets[: len(shown["z"])]] != 1).all()
    for table in (loss.nats, loss.weight, *terms.values()):
        assert (table[~targets] == 0).all()
    assert loss.weight.sum() == 60


def test_evaluation_runs_the_network_on_rows_with_a_question_only():
    class Watching(Table):
        def predict(self, z, t):
            self.rows = len(z)
            return super().predict(z, t)

    process = make_process("masking", "linear")
    network, wanted = Watching(process, 2, seed=2), torch.tensor([[False, False], [True, False], [False, False]])
    z, t = torch.tensor([[0, 2], [1, 3], [2, 2]]), torch.zeros(3, dtype=torch.float64)
    few = WantedRows(network)(z, t, segments=torch.ones_like(z), positions=wanted)
    assert network.rows == 1
    assert torch.equal(few, network(z, t, segments=torch.ones_like(z), positions=wanted))
    none = WantedRows(network)(z, t, segments=torch.ones_like(z), positions=torch.zeros_like(wanted))
    assert none.shape == (0, 4)


# ── what is refused ────────────────────────────────────────────────────────────────────────────────────────────


def test_rows_that_blocks_do_not_fill_are_refused():
    objective = block_objective(3)
    network = BlockView(Constant(objective.bound.process), 3)
    with pytest.raises(ValueError, match="rows are 4 tokens long, which blocks of 3 do not fill"):
        objective(network, full_batch([[0, 3, 2, 2]]), generator=keyed_generator(1))


def test_blocks_without_tokens_and_empty_time_ranges_are_refused():
    bound = block_objective(2).bound
    with pytest.raises(ValueError, match="block_length: 0 was given"):
        BlockDiffusion(bound=bound, block_length=0)
    for t_range in ((0.5, 0.5), (-0.1, 1.0), (0.2, 1.5), (0.0, 1e-4)):
        with pytest.raises(ValueError, match="t_range"):
            BlockDiffusion(bound=bound, block_length=2, t_range=t_range)
    early = BlockDiffusion(
        bound=replace(bound, curriculum=rising_range(start=0.2, steps=9)), block_length=2, t_range=(0.4, 1)
    )
    with pytest.raises(ValueError, match="below where a curriculum begins"):
        early.at(1)  # the integral would run backwards, and the loss be negative
