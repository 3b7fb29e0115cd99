"""Concept networks as a recipe has them: saved and loaded, run otherwise in training, named, and refused elsewhere."""

import json

import pytest
import torch
from concept_networks import all_real, make, run, tokens
from torch.nn import functional

from remask.config import schema
from remask.config.build import build_model, describe_shape
from remask.config.contradictions import contradictions
from remask.config.saved import load_model, save_model
from remask.config.words import describe_architecture, describe_family
from remask.errors import UserError
from remask.harness import RemaskLM
from remask.hub import RemaskForDiffusion
from remask.networks.running import Recomputed, run_in_training
from remask.tokenizers import ByteTokenizer


def recipe(**network) -> schema.Recipe:
    small = {"kind": "concept", "width": 16, "heads": 2, "layers": 2, "concepts": 3, "decoder_layers": 1, "scratch": 2}
    return schema.Recipe.model_validate_json(
        json.dumps(
            {
                "name": "small",
                "data": {"source": "python-docs", "length": 12, "prefix": 4},
                "objective": {"kind": "concept_bound"},
                "network": small | network,
            }
        )
    )


def clashes(**network) -> list[tuple[str, ...]]:
    return [clash.keys for clash in contradictions(recipe(**network))]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model folder, and the model that was saved in it."""
    whole = recipe(encoder="two_way", latent_width=6, freeze_encoder=True)
    model = build_model(whole, ByteTokenizer(), device=torch.device("cpu"))
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_model(model, whole, folder)
    return folder, model


def test_a_saved_model_is_the_model_that_was_saved(saved):
    folder, model = saved
    loaded, _ = load_model(folder, device=torch.device("cpu"))
    z, source = tokens(2, 5), tokens(2, 4)
    torch.testing.assert_close(run(loaded.network, z, source=source), run(model.network.eval(), z, source=source))
    assert [p.requires_grad for p in loaded.network.parameters()] == [
        p.requires_grad for p in model.network.parameters()
    ]


def test_those_who_cannot_tell_the_given_from_the_rest_refuse_such_a_model_in_one_line(saved):
    folder, _ = saved
    with pytest.raises(UserError, match=r"apart from those it denoises.*Call generate") as hub:
        RemaskForDiffusion.from_pretrained(folder)(tokens(1, 5))
    with pytest.raises(UserError, match=r"apart from those it denoises.*remask evaluate") as harness:
        RemaskLM(str(folder), device="cpu")
    assert not any("\n" in str(refusal.value) for refusal in (hub, harness))


def test_layers_computed_again_have_the_gradients_of_layers_that_are_kept():
    z, source = tokens(2, 6), tokens(2, 7)
    gradients = []
    for change in (False, True):
        network = make(stirred=True, encoder="recursive", layers=2).train()
        if change:
            run_in_training(network.repeated_layers(), Recomputed())
        logits = run(network, z, source=source, source_real=all_real(source))
        functional.cross_entropy(logits, z.flatten()).backward()
        gradients.append({name: p.grad for name, p in network.named_parameters()})
    plain, other = gradients
    for name, gradient in plain.items():
        torch.testing.assert_close(other[name], gradient, atol=1e-6, rtol=1e-5)


def test_a_run_is_named_after_its_widths_layers_and_concepts():
    big = recipe(width=512, heads=8, layers=6, concepts=128, decoder_layers=2)
    assert describe_shape(big) == "H512L6C128D2"
    assert describe_architecture(big) == "concept H512, perceiver encoder L6 C128, denoising decoder L2"
    assert describe_family(big) == "concept"
    full = recipe(encoder="tokens", freeze_encoder=True)
    assert describe_shape(full) == "H16L2D1"
    assert describe_architecture(full) == "concept H16, frozen tokens encoder L2, denoising decoder L1"
    other = recipe(encoder="two_way", slots="competing", latent_width=8, decoder="position_only")
    assert describe_architecture(other) == (
        "concept H16, two-way encoder L2 C3, competing slots, latent width 8, position-only decoder L1"
    )


@pytest.mark.parametrize(
    ("network", "keys"),
    [
        ({"encoder": "two_way", "layers": 1}, ("network.encoder", "network.layers")),
        ({"local_width": 4}, ("network.kind", "network.local_width")),
        ({"decoder_local_width": 2}, ("network.kind", "network.decoder_local_width")),
        ({"min_depth": 1}, ("network.encoder", "network.min_depth")),
        ({"encoder": "recursive", "min_depth": 3}, ("network.layers", "network.min_depth")),
        ({"encoder": "tokens", "slots": "competing"}, ("network.encoder", "network.slots")),
        ({"encoder": "tokens", "decoder": "weighted"}, ("network.encoder", "network.decoder")),
        ({"encoder": "none", "latent_width": 4}, ("network.encoder", "network.latent_width")),
        ({"encoder": "mean", "freeze_encoder": True}, ("network.encoder", "network.freeze_encoder")),
        ({"width": 18}, ("network.heads", "network.width")),
    ],
)
def test_keys_of_the_network_that_do_not_go_together_are_found(network, keys):
    assert clashes() == []
    assert clashes(**network) == [keys]


def test_other_noise_than_masking_is_refused():
    """A decoder that sees its own noisy token emits leave-one-out logits under masking alone."""
    masked = recipe()
    uniform = masked.model_copy(update={"process": schema.UniformSpec()})
    assert ("network.kind", "process.kind") in [clash.keys for clash in contradictions(uniform)]
    assert list(contradictions(masked)) == []
