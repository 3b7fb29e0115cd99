"""Thoughts that are a codec's vectors of a response, rather than a vector for each token."""

import pytest
import torch
from test_text_autoencoder import autoencoder

from remask.config.build.concepts import build_concept_network
from remask.config.schema import ConceptSpec
from remask.evaluation.thoughts import row_thoughts
from remask.gaussian import NOISE, VELOCITY, CosineNoise
from remask.generation import pair_prompt
from remask.networks.thought import FrozenCodec, ScratchTrunk, ThoughtNetwork
from remask.networks.thought.codecs import ConceptCodec
from remask.networks.thought.network import BIDIRECTIONAL
from remask.objectives.thought import rows_in, squared_error
from remask.randomness import keyed_generator
from remask.reasoning import draw_thought, exchanged, random_thought, write_answers
from remask.samplers import reshape_distribution
from remask.samplers.gaussian import ddim
from remask.schedules import time_grid
from thoughts import ANSWERS, EOS, MASK, TOKENIZER, V, question_rows, shaken, thought_model
from thoughts import thought_objective as objective

QUESTIONS = ("1=?2#34", "5=?6#70", "8=?99#1")


def codec(*, length=8):
    made = FrozenCodec(autoencoder(length=length), start=10, eos_id=EOS, origin={})
    rows = rows_in(question_rows(), network_around(made))
    made.measure([rows.responses.tokens])
    return made


def network_around(made, *, seed=1):
    trunk = ScratchTrunk(vocab_size=V, width=16, layers=1, heads=2, mlp_width=32)
    trunk.initialise(keyed_generator(seed, "trunk"))
    network = ThoughtNetwork(trunk, made, sight=BIDIRECTIONAL, start_id=EOS, remembers=True, speaks=made.width)
    network.initialise(keyed_generator(seed, "thought"))
    return network


def of_vectors(**rest):
    return objective(vectors=True, loss=squared_error, **{"prediction": VELOCITY, **rest})


class Seeing(torch.nn.Module):
    """Says what the vectors of one batch are, whatever it is shown; under a codec that reads them right."""

    def __init__(self, made, batch):
        super().__init__()
        self.codec, self.batch, self.anchor = made, batch, torch.nn.Parameter(torch.zeros(1))

    def forward(self, z, t, *, noisy, **rest):
        x = rows_in(self.batch, self).clean
        return VELOCITY.target(CosineNoise(), x, t, noise=CosineNoise().noise_of_clean(z, x, t))[noisy]


class Reading(torch.nn.Module):
    """A codec that is right by construction: two tokens a vector, one feature each."""

    length, eos_id, start, width, count = 8, EOS, 10, 2, 4

    def encode(self, ids):
        return (ids.float() / V).unflatten(1, (4, 2))

    def decode(self, vectors):
        return -1e3 * ((vectors.flatten(1)[..., None] * V) - torch.arange(V)).square()


def test_measured_vectors_have_mean_nought_and_mean_square_one_and_are_written_as_before():
    made, ids = codec(), rows_in(question_rows(), network_around(codec())).responses.tokens
    found = made.encode(ids)
    torch.testing.assert_close(found.mean((0, 1)), torch.zeros(3), atol=1e-5, rtol=0)
    assert float(found.square().mean()) == pytest.approx(1.0, rel=1e-4)
    own = made.autoencoder
    torch.testing.assert_close(made.decode(found), own.decode(own.encode(ids)), atol=1e-5, rtol=1e-4)


def test_a_codec_stays_as_it_is_while_all_else_is_trained():
    network = network_around(codec())
    of = of_vectors().at(1)
    of(network.train(), question_rows(), generator=torch.Generator().manual_seed(1)).nats.sum().backward()
    moved = {name.partition(".")[0] for name, p in network.named_parameters() if p.grad is not None}
    assert "codec" not in moved
    assert {"read", "recall", "say", "trunk"} <= moved
    assert not network.codec.autoencoder.training


def test_a_network_sees_the_question_and_nothing_of_the_response_nor_of_other_rows():
    network = shaken(network_around(codec()))
    z = torch.randn(1, 4, 3, generator=keyed_generator(1, "z"))

    def said(texts):
        rows = rows_in(question_rows(texts), network)
        noisy = rows.placed(z.expand(len(texts), -1, -1))
        t = torch.full((len(texts),), 0.5)
        return network(noisy, t, **rows.asked).unflatten(0, (len(texts), -1))[0].detach()

    alone = said(("1=?2#34",))
    torch.testing.assert_close(said(("1=?70#6",)), alone)
    torch.testing.assert_close(said(("1=?2#34", "1=23=?5#1")), alone, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(said(("2=?2#34",)), alone)


@pytest.mark.parametrize("prediction", [VELOCITY, NOISE])
def test_who_says_zero_gets_the_trivial_loss_and_skill_of_the_filter_or_less(prediction):
    network, batch = network_around(codec()), question_rows(QUESTIONS * 100)
    torch.nn.init.zeros_(network.say.weight)
    of = of_vectors(memory=0.0, prediction=prediction)
    loss = of(network, batch, generator=torch.Generator().manual_seed(1))
    assert float(loss.nats.detach().sum() / loss.weight.sum()) == pytest.approx(of.trivial_loss["zero"], rel=0.05)
    assert bool((loss.nats[~batch.targets] == 0).all())
    figures = of.diagnostics(network, {name: float(value) for name, value in loss.terms.items()})
    if prediction is VELOCITY:
        assert max(abs(value) for name, value in figures.items() if name.startswith("skill_t")) < 0.1
    else:
        assert figures["worst_skill"] < -1, "x̂ = z / α, worse than any filter where little is left of the signal"


def test_who_knows_the_vectors_names_every_token_has_all_skill_and_draws_the_response():
    batch = question_rows(QUESTIONS)
    network, of = Seeing(Reading(), batch), of_vectors(memory=0.0)
    loss = of(network, batch, generator=torch.Generator().manual_seed(1))
    assert float(loss.nats.detach().abs().max()) < 1e-8
    assert bool((of.rebuild(network, batch, generator=torch.Generator().manual_seed(2)) == batch.ids).all())
    found = of.assess(network, batch, generator=torch.Generator().manual_seed(3), draws=2)
    assert float(found.nats.max()) < 1e-3
    judged = row_thoughts(thought_model(network, of), [batch], levels=2, draws=1, seed=1)
    assert judged.clean["right"].sum() == judged.tokens.sum()
    assert float(judged.levels["ratio"].max()) < 1e-6
    frames = []
    thought = draw_thought(
        thought_model(network, of),
        pair_prompt(batch),
        walk=ddim,
        times=time_grid(3),
        guidance=0.0,
        transform=reshape_distribution(temperature=1.0, top_p=1.0),
        generator=keyed_generator(1, "draw"),
        on_step=frames.append,
    )
    assert bool((thought.ids == batch.ids).all())
    assert bool((frames[-1].z == batch.ids).all())


def test_answers_are_written_behind_the_vectors_of_a_codec_too():
    network, batch = shaken(network_around(codec())), question_rows(QUESTIONS)
    of = of_vectors(answers=ANSWERS).at(1)
    loss = of(network, batch, generator=keyed_generator(1, "noise"))
    assert float(loss.terms["answer_tokens"]) > 0
    model, prompt = thought_model(network, of), pair_prompt(batch)
    noise = random_thought(model, prompt, generator=keyed_generator(1, "noise"))
    own, other = (write_answers(model, prompt, given, length=3) for given in (noise, exchanged(noise)))
    assert own.shape[0] == other.shape[0] == 3
    assert not torch.equal(own, other), "what is written follows from the vectors"


def test_concepts_are_a_codec_whose_decoder_sees_masks_and_concepts_alone():
    spec = ConceptSpec(width=16, heads=2, layers=1, concepts=3, latent_width=4, decoder_layers=1, scratch=2)
    network = shaken(build_concept_network(spec, TOKENIZER, length=8, seed=1))
    made = FrozenCodec(ConceptCodec(network, length=8, mask_id=MASK, heard=0.9), start=10, eos_id=EOS, origin={})
    ids = rows_in(question_rows(), network_around(made)).responses.tokens
    made.measure([ids])
    vectors = made.encode(ids)
    assert vectors.shape == (3, 3, 4)
    assert made.decode(vectors).shape == (3, 8, V)
    assert made.filled is network

    def said(vectors, *, heard=0.9, mask=MASK):
        return ConceptCodec(network, length=8, mask_id=mask, heard=heard).decode(vectors)

    assert not torch.allclose(said(vectors), said(-vectors))
    assert torch.equal(said(vectors, heard=0.0), said(-vectors, heard=0.0)), "of what is not heard nothing is left"
    assert not torch.allclose(said(vectors), said(vectors, mask=EOS)), "the places show what they are given"
