"""Autoencoders of texts and the diffusion over what lies between their parts, from a recipe."""

import json
from collections.abc import Mapping
from typing import Any

from remask import gaussian, processes
from remask.config import schema
from remask.config.build.concepts import build_concept_network
from remask.errors import UserError
from remask.networks.concepts.prior import ConceptPriorNetwork
from remask.networks.latent import LatentTransformer
from remask.objectives.concepts.autoencoder import ConceptAutoencoder
from remask.objectives.concepts.channel import LatentChannel
from remask.objectives.concepts.prior import ConceptPrior, skill_of
from remask.objectives.gaussian import (
    LatentDiffusion,
    Weighting,
    bound_weight,
    min_snr,
    own_error,
    towards_noise,
    unwarped,
)
from remask.objectives.likelihood import LikelihoodBound, masking_integrand
from remask.objectives.responses import AsTexts
from remask.randomness import keyed_generator
from remask.tokenizers import Tokenizer

GAMMA = 5.0
"""Of min-SNR weights (arXiv:2303.09556, section 4.3)."""


def codec_recipe(recipe: schema.Recipe, architecture: Mapping[str, Any] | None) -> schema.Recipe:
    """The recipe of the codec within a network, as `ConceptPriorNetwork.origin` holds it.

    Raises:
        UserError: nobody says what the codec is, which is known where a training begins and of a saved model.
    """
    if architecture is None or "codec" not in architecture:
        raise UserError(
            f"recipe {recipe.name} has a network around another run's, which is opened where a training begins: a "
            "fresh one cannot be made here. Give a finished run"
        )
    # JSON has lists only, where a strict recipe wants tuples: read it as JSON, in which the two are one
    return schema.Recipe.model_validate_json(json.dumps(architecture["codec"]))


def build_gaussian(name: str) -> gaussian.GaussianProcess:
    """The Gaussian noise of a name in a recipe."""
    return {
        "cosine": gaussian.CosineNoise,
        "linear": gaussian.LinearNoise,
        "square_root": gaussian.SquareRootNoise,
    }[name]()


def refuse_late(key: str, time: float, *, prediction: gaussian.Prediction, process: gaussian.GaussianProcess) -> None:
    """Refuses a first time behind the last at which what a network speaks of says what the vectors are.

    Args:
        key: where the time stands in a recipe.
        time: the first that is learned.
        prediction: what the network speaks of.
        process: the noise.

    Raises:
        UserError: no time is left to learn.
    """
    latest = prediction.latest(process)
    if not time < latest:
        raise UserError(
            f"{key}={time}: a network that says the noise says what the vectors are at times below {latest:.6g} alone, "
            "so that no time is left. Give less, or a velocity to predict"
        )


def build_channel(spec: schema.LatentSpec, codec: schema.ConceptSpec) -> LatentChannel:
    """What lies between the encoder and the decoder of a codec."""
    assert codec.slot_count is not None
    assert codec.latent_width is not None
    return LatentChannel(
        process=build_gaussian(spec.latent_noise),
        time=spec.latent_time,
        concepts=codec.slot_count,
        width=codec.latent_width,
    )


def build_autoencoder(
    recipe: schema.Recipe, spec: schema.ConceptAutoencoderSpec, *, bound: LikelihoodBound, eos_id: int
) -> ConceptAutoencoder:
    """The first stage; `bound` is of the text given its noisy concepts, `eos_id` fills up responses."""
    assert isinstance(recipe.network, schema.ConceptSpec)
    return ConceptAutoencoder(
        bound=bound,
        channel=build_channel(spec, recipe.network),
        blind_share=spec.blind_share,
        texts=AsTexts(length=recipe.data.length, eos_id=eos_id) if recipe.data.paired else None,
    )


def build_prior(
    spec: schema.ConceptPriorSpec, process: processes.CategoricalProcess, codec: schema.Recipe
) -> ConceptPrior:
    """The second stage, over the concepts of a first.

    Args:
        spec: the objective.
        process: masking noise on text.
        codec: the recipe of the first stage.

    Raises:
        UserError: the decoder's time is later than any of which the prediction says what the concepts are.
    """
    assert isinstance(codec.network, schema.ConceptSpec)
    channel = build_channel(spec, codec.network)
    prediction = {"velocity": gaussian.VELOCITY, "clean": gaussian.CLEAN, "noise": gaussian.NOISE}[spec.prediction]
    refuse_late("objective.latent_time", spec.latent_time, prediction=prediction, process=channel.process)
    weightings: Mapping[str, Weighting] = {
        "own": own_error(prediction),
        "min_snr": min_snr(GAMMA),
        "bound": bound_weight,
    }
    diffusion = LatentDiffusion(
        process=channel.process,
        prediction=prediction,
        weighting=weightings[spec.weighting],
        t_min=spec.latent_time,
        warp=unwarped if spec.time_exponent == 1.0 else towards_noise(spec.time_exponent),
    )
    bound = LikelihoodBound(process=process, integrand=masking_integrand, t_min=spec.t_min)
    return ConceptPrior(bound=bound, channel=channel, diffusion=diffusion, skill=skill_of(diffusion))


def build_prior_network(
    spec: schema.ConceptPriorNetworkSpec,
    tokenizer: Tokenizer,
    *,
    codec: schema.Recipe,
    seed: int,
) -> ConceptPriorNetwork:
    """An untrained prior around an untrained codec, on the CPU; the codec's weights are put in by whoever has them.

    Args:
        spec: the network.
        tokenizer: the codec's.
        codec: the recipe of the first stage.
        seed: of the prior's weights.
    """
    first = codec.network
    assert isinstance(first, schema.ConceptSpec)
    assert first.slot_count is not None
    assert first.latent_width is not None
    prior = LatentTransformer(
        vectors=first.slot_count,
        features=first.latent_width,
        width=spec.width,
        layers=spec.layers,
        heads=spec.heads,
        mlp_width=spec.hidden_width,
        dropout=spec.dropout,
    )
    prior.initialise(keyed_generator(seed, "weights"))
    network = build_concept_network(first, tokenizer, length=codec.data.length, seed=codec.seed)
    origin: dict[str, Any] = codec.model_dump(mode="json")
    return ConceptPriorNetwork(network, prior, origin=origin)
