"""Responses through a few Gaussian vectors: rows of their own, the loss in its two parts, and what is frozen."""

from dataclasses import replace

import pytest
import torch

from remask.networks.thought.autoencoder import OwnReader, TextAutoencoder, own_blocks
from remask.objectives.responses import Responses
from remask.objectives.text_autoencoder import TextReconstruction
from remask.randomness import keyed_generator
from thoughts import EOS, MASK, TOKENIZER, V, question_rows

OBJECTIVE = TextReconstruction(divergence=0.1, eos_id=EOS, mask_id=MASK)


def autoencoder(*, length=8, stride=2, seed=1):
    sizes = {"layers": 1, "heads": 2, "mlp_width": 32, "dropout": 0.0}
    reader = OwnReader(V, 16, own_blocks(16, **sizes), head_width=8)
    network = TextAutoencoder(
        vocab_size=V, reader=reader, length=length, stride=stride, latent_width=3, width=16, **sizes
    )
    network.initialise(keyed_generator(seed, "weights"))
    return network


def test_a_response_is_moved_to_the_left_and_filled_up_or_cut():
    batch = question_rows(("1=?2#34", "5=?6", "8=?9#12#34"), length=10)
    long = Responses(ids=batch.ids, free=batch.targets, length=9, eos_id=EOS)
    assert [TOKENIZER.decode(row[: int((row != EOS).sum())].numpy()) for row in long.tokens] == ["2#34", "6", "9#12#34"]
    assert bool((long.tokens[1, 1:] == EOS).all())
    short = replace(long, length=4)
    assert short.tokens.tolist() == long.tokens[:, :4].tolist()
    logits = torch.randn(3, 4, V, generator=keyed_generator(1, "logits"))
    found = short.in_places(logits).view(3, 7, V)
    torch.testing.assert_close(found[:, :4], logits)
    assert bool((found[:, 4:].log_softmax(-1)[..., EOS] > -1e-6).all()), "behind the last place the text has ended"


def test_the_loss_is_reconstruction_and_a_weighted_divergence_from_white_noise():
    network, batch = autoencoder(), question_rows()
    plain, both = (
        replace(OBJECTIVE, divergence=weight)(network, batch, generator=keyed_generator(1, "noise"))
        for weight in (0.0, 0.1)
    )
    responses = Responses(ids=batch.ids, free=batch.targets, length=8, eos_id=EOS).tokens
    mean, log_variance = network.posterior(responses)
    here = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    divergence = torch.distributions.kl_divergence(here, torch.distributions.Normal(0.0, 1.0)).sum((1, 2))
    torch.testing.assert_close((both.nats - plain.nats).sum(1), 0.1 * divergence, atol=1e-4, rtol=1e-4)
    uniform = torch.tensor(V - 1.0).log().item()
    assert float(plain.nats.detach().sum() / plain.weight.sum()) == pytest.approx(uniform, rel=0.05)
    assert bool((plain.nats[~batch.targets] == 0).all())


def test_vectors_tell_all_that_is_known_and_the_question_is_not_part_of_it():
    network = autoencoder()
    batch, other = question_rows(("1=?2#34",)), question_rows(("9=?2#34",))
    losses = [OBJECTIVE(network, rows, generator=keyed_generator(1, "noise")).nats for rows in (batch, other)]
    torch.testing.assert_close(*losses)
    assert network.encode(torch.zeros(2, 8, dtype=torch.long)).shape == (2, 4, 3)


def test_a_few_steps_teach_it_to_write_a_text_again():
    network, batch = autoencoder(), question_rows(("1=?2#34", "5=?6#70", "8=?99#1"))
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-2)
    for step in range(25):
        loss = OBJECTIVE(network, batch, generator=keyed_generator(step, "noise"))
        optimiser.zero_grad()
        (loss.nats.sum() / loss.weight.sum()).backward()
        optimiser.step()
    rebuilt = OBJECTIVE.rebuild(network, batch, generator=keyed_generator(1, "noise"))
    assert float((rebuilt == batch.ids).float().mean()) > 0.9
    figures = OBJECTIVE.diagnostics(network, {k: float(v) for k, v in loss.terms.items()})
    assert figures["tokens_named"] > 0.8
    assert figures["divergence_per_token"] > 0.0


def test_every_weight_has_a_gradient_in_the_first_step():
    network = autoencoder()
    OBJECTIVE(network, question_rows(), generator=keyed_generator(1, "noise")).nats.sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or float(p.grad.abs().max()) == 0.0] == []
