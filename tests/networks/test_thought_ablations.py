"""What can be taken away from the network of a thought: the time, the question, an output of its own."""

from dataclasses import replace

import pytest
import torch

from remask.config.build import build_model
from remask.config.load import load_recipe
from remask.config.schema import ThoughtSpec
from remask.config.words import describe_architecture
from remask.errors import UserError
from remask.gaussian import NOISE
from remask.networks.thought import OwnTable, ScratchTrunk, ThoughtNetwork
from remask.networks.thought.network import BIDIRECTIONAL, hidden
from remask.objectives.thought import squared_error
from remask.randomness import keyed_generator
from remask.tokenizers import ByteTokenizer, CharacterTokenizer
from thoughts import EOS, MASK, V, question_rows, shaken, thought_objective

WIDTH = 8


def naive(**ablation) -> ThoughtNetwork:
    """A random network on its own embedding, with something taken away."""
    trunk = ScratchTrunk(vocab_size=V, width=WIDTH, layers=2, heads=2, mlp_width=16)
    trunk.initialise(keyed_generator(1, "trunk"))
    codec = OwnTable(trunk.embedding)
    network = ThoughtNetwork(trunk, codec, sight=BIDIRECTIONAL, start_id=EOS, remembers=False, **ablation)
    network.initialise(keyed_generator(1, "thought"))
    return shaken(network)


def look(network, batch, *, t=0.4):
    z = torch.randn(*batch.ids.shape, WIDTH, generator=keyed_generator(3, "z"))
    given = {"ids": batch.ids, "noisy": batch.targets, "segments": batch.segments, "positions": batch.targets}
    with torch.no_grad():
        return network(z, torch.full((len(batch),), t), **given)


def other_question(batch):
    asked = batch.ids.masked_fill(~batch.targets, 3)
    assert not torch.equal(asked, batch.ids)
    return replace(batch, ids=asked)


def test_a_hidden_question_is_not_read_and_a_shown_one_is():
    batch = question_rows()
    blind, seeing = naive(given=hidden(MASK)), naive()
    assert torch.equal(look(blind, batch), look(blind, other_question(batch)))
    assert not torch.allclose(look(seeing, batch), look(seeing, other_question(batch)))


def test_a_network_without_time_answers_alike_at_all_times_and_has_no_weights_for_it():
    batch = question_rows()
    timeless, timed = naive(timed=False), naive()
    assert torch.equal(look(timeless, batch, t=0.1), look(timeless, batch, t=0.9))
    assert not torch.allclose(look(timed, batch, t=0.1), look(timed, batch, t=0.9))
    assert not [name for name, _ in timeless.named_parameters() if name.startswith(("time", "modulation"))]


def test_the_first_logits_are_what_is_said():
    batch = question_rows()
    assert torch.equal(look(naive(columns=WIDTH), batch), look(naive(), batch)[:, :WIDTH])


def test_logits_that_are_zero_cost_what_predicting_zero_gets():
    network = naive(columns=WIDTH, given=hidden(MASK), timed=False)
    torch.nn.init.zeros_(network.trunk.head.weight)
    of = thought_objective(vectors=True, loss=squared_error, memory=0.0, prediction=NOISE)
    batch = question_rows(("1=?2#34",) * 64)
    loss = of(network, batch, generator=torch.Generator().manual_seed(1))
    assert float(loss.nats.detach().sum() / loss.weight.sum()) == pytest.approx(of.trivial_loss["zero"], rel=0.05)
    assert of.trivial_loss["zero"] == pytest.approx(1.0)
    figures = of.diagnostics(network, {name: float(value) for name, value in loss.terms.items()})
    assert figures["worst_skill"] < 0.0


def test_the_naive_recipe_takes_all_three_away_and_says_so():
    recipe = load_recipe("thought-naive", ["network.width=32", "network.layers=1"])
    assert isinstance(recipe.network, ThoughtSpec)
    network = build_model(recipe, ByteTokenizer(), device=torch.device("cpu")).network
    assert isinstance(network, ThoughtNetwork)
    assert (network.columns, network.time, network.recall, network.say) == (32, None, None, None)
    assert isinstance(network.codec, OwnTable)
    assert describe_architecture(recipe) == (
        "thought D32 L1 H4, causal, own embedding as latent, logit columns out, no time, no question"
    )


def test_fewer_logits_than_features_are_refused():
    recipe = load_recipe("thought-naive", ["tokenizer.kind=character"])
    with pytest.raises(UserError, match=r"takes 128 logits, .* and the vocabulary has 12\. Give a larger tokenizer"):
        build_model(recipe, CharacterTokenizer("0123456789"), device=torch.device("cpu"))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            "objective.loss=cross_entropy",
            "network.readout: logit_columns given, but objective.loss=cross_entropy is of tokens; give "
            "network.readout=tokens, or objective.loss=clean (or velocity, noise)",
        ),
        (
            "sampling.temperature=0.5",
            "sampling.temperature: 0.5 given, but network.readout=logit_columns has no probabilities to reshape; give "
            "sampling.temperature=1",
        ),
        (
            "training.prompt_dropout=0.1",
            "training.prompt_dropout: 0.1 given, but network.question=hidden has no question to read; give "
            "training.prompt_dropout=0, or network.question=shown",
        ),
        (
            "sampling.guidance=1",
            "sampling.guidance: 1 given, but network.question=hidden has no question to read; give "
            "sampling.guidance=0, or network.question=shown",
        ),
    ],
)
def test_senseless_combinations_get_one_line(change, line):
    with pytest.raises(UserError) as caught:
        load_recipe("thought-naive", [change])
    assert str(caught.value) == line
