"""Masked language modelling: one rate of masking, a mean cross-entropy, and a likelihood by the denoiser's bound."""

import math

import pytest
import torch

from doubles import CURVES, Constant, Table, full_batch, make_process
from remask.data.batch import Batch
from remask.objectives import LikelihoodBound, MaskedLanguageModel, masking_integrand
from remask.randomness import keyed_generator

pytestmark = pytest.mark.usefixtures("global_generator_untouched")


class Watching(Table):
    """Keeps what it was last shown."""

    def predict(self, z, t):
        self.z, self.t = z, t
        return super().predict(z, t)


@pytest.mark.parametrize("schedule", CURVES)
@pytest.mark.parametrize("rate", [0.15, 0.6])
def test_the_masked_share_is_the_rate_whatever_the_schedule(schedule, rate):
    process = make_process("masking", schedule)
    objective = MaskedLanguageModel(process=process, rate=rate)
    network = Watching(process, 4, seed=1)
    objective(network, full_batch([[0, 3, 2, 2]] * 5000), generator=keyed_generator(1))
    share = float((network.z == process.mask_id).double().mean())
    assert share == pytest.approx(rate, abs=4.5 * math.sqrt(rate * (1 - rate) / 20_000))
    torch.testing.assert_close(1 - process.schedule.alpha(network.t), torch.full((5000,), rate).double())


def test_the_loss_is_the_cross_entropy_of_hidden_tokens_scaled_to_a_mean_over_all_targets():
    process = make_process("masking", "linear")
    network = Watching(process, 3, seed=1)
    ids = torch.tensor([[0, 3, 2]] * 200)
    loss = MaskedLanguageModel(process=process, rate=0.5)(network, full_batch(ids), generator=keyed_generator(1))
    hidden = network.z == process.mask_id
    log_p = process.log_clean(network.predict(network.z, network.t)).gather(-1, ids[..., None]).squeeze(-1)
    torch.testing.assert_close(loss.nats, torch.where(hidden, -log_p / 0.5, 0.0))
    assert loss.weight.sum() == 600
    assert float(loss.terms["hidden_tokens"]) == pytest.approx(float(loss.nats.sum()))


def test_a_constant_predictor_gets_log_n_in_mean():
    process = make_process("masking", "linear")
    batch = full_batch([[0, 3, 2, 0]] * 5000)
    loss = MaskedLanguageModel(process=process, rate=0.15)(Constant(process), batch, generator=keyed_generator(1))
    spread = 4.5 * float(loss.nats.std()) / math.sqrt(20_000)
    assert float(loss.nats.sum() / loss.weight.sum()) == pytest.approx(math.log(3), abs=spread)


def test_training_claims_no_likelihood_and_evaluation_gives_the_bound():
    process = make_process("masking", "linear")
    objective = MaskedLanguageModel(process=process, t_min=0.05)
    network, batch = Table(process, 3, seed=2), full_batch([[0, 3, 2]] * 4)
    assert "diffusion" not in objective(network, batch, generator=keyed_generator(1)).terms
    assert objective.exact is False
    assert objective.at(7) is objective
    ours = objective.likelihood_terms(network, batch, generator=keyed_generator(1), draws=2)
    bound = LikelihoodBound(process=process, integrand=masking_integrand, t_min=0.05)
    theirs = bound.likelihood_terms(network, batch, generator=keyed_generator(1), draws=2)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_padding_is_neither_hidden_nor_counted():
    process = make_process("masking", "linear")
    valid = torch.tensor([[True, True, False]] * 50)
    batch = Batch(
        ids=torch.tensor([[3, 2, 0]] * 50),
        segments=valid.long(),
        targets=valid,
        byte_lengths=valid.long(),
        rows=torch.arange(50),
        global_size=50,
    )
    network = Watching(process, 3, seed=1)
    loss = MaskedLanguageModel(process=process, rate=0.5)(network, batch, generator=keyed_generator(1))
    assert (network.z[:, 2] == 0).all()
    assert (loss.nats[:, 2] == 0).all()
    assert loss.weight.sum() == 100


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 0.95])
def test_a_rate_that_the_schedule_never_reaches_is_refused(rate):
    with pytest.raises(ValueError, match=r"rate: .* was given"):
        MaskedLanguageModel(process=make_process("masking", "log_linear"), rate=rate)
