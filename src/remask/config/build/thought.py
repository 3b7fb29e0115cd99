"""Thoughts, from a recipe: their objective and their networks."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from torch import nn

from remask import gaussian
from remask.config import schema
from remask.config.build.experts import gated_mlp
from remask.config.build.latents import GAMMA, refuse_late
from remask.config.build.thought_codecs import build_frozen_codec
from remask.errors import UserError
from remask.networks.thought import FrozenCodec, LearnedTable, OwnTable, ScratchTrunk, ThoughtNetwork, Trunk
from remask.networks.thought.network import BIDIRECTIONAL, CAUSAL, hidden, shown
from remask.networks.thought.warping import TimeWarp
from remask.objectives.gaussian import LatentDiffusion, Weighting, min_snr, own_error, towards_noise, unwarped
from remask.objectives.readouts import TokenReadout, VectorReadout
from remask.objectives.thought import ThoughtDiffusion, cross_entropy, skill_of, squared_error
from remask.objectives.written_answers import WrittenAnswers
from remask.randomness import keyed_generator
from remask.tokenizers import Tokenizer

# ── objective ──────────────────────────────────────────────────────────────────────────────────────────────────


def build_thought(
    recipe: schema.Recipe, spec: schema.ThoughtObjectiveSpec, process: gaussian.GaussianProcess, tokenizer: Tokenizer
) -> ThoughtDiffusion:
    """The objective of a thought.

    Args:
        recipe: its network says what is spoken of.
        spec: the objective.
        process: the noise on vectors.
        tokenizer: text ⇄ ids.

    Raises:
        UserError: no time is left to learn, or the tokenizer cannot write the mark of answers.
    """
    assert isinstance(recipe.network, schema.LatentTableSpec), "the schema refuses another network"
    prediction = {
        "cross_entropy": gaussian.CLEAN,
        "clean": gaussian.CLEAN,
        "velocity": gaussian.VELOCITY,
        "noise": gaussian.NOISE,
    }[spec.loss]
    refuse_late("objective.t_min", spec.t_min, prediction=prediction, process=process)
    weightings: Mapping[str, Weighting] = {"own": own_error(prediction), "min_snr": min_snr(GAMMA)}
    diffusion = LatentDiffusion(
        process=process,
        prediction=prediction,
        weighting=weightings[spec.weighting],
        t_min=spec.t_min,
        warp=unwarped if spec.time_exponent == 1.0 else towards_noise(spec.time_exponent),
    )
    readouts = {"tokens": TokenReadout, "vectors": VectorReadout, "logit_columns": VectorReadout}
    readout = readouts[recipe.network.readout]
    return ThoughtDiffusion(
        diffusion=diffusion,
        loss=cross_entropy if spec.loss == "cross_entropy" else squared_error,
        readout=readout(diffusion=diffusion, mask_id=tokenizer.mask_id),
        memory=spec.self_conditioning,
        answers=build_answers(spec, tokenizer) if spec.answer_weight else None,
        skill=skill_of(diffusion),
    )


def build_answers(spec: schema.ThoughtObjectiveSpec, tokenizer: Tokenizer) -> WrittenAnswers:
    """What of a response is written from left to right.

    Raises:
        UserError: when the tokenizer cannot write the mark.
    """
    return WrittenAnswers(
        marks=None if spec.answer_mark is None else spellings(spec.answer_mark, tokenizer),
        eos_id=tokenizer.eos_id,
        weight=spec.answer_weight,
        share=spec.answer_share,
        latest=spec.answer_noise,
    )


def spellings(mark: str, tokenizer: Tokenizer) -> tuple[tuple[int, ...], ...]:
    """A mark's tokens where it stands alone, and with white space before it that the tokenizer knows.

    Raises:
        UserError: when it cannot be written at all.
    """
    found = {tuple(tokenizer.encode(mark).ids.tolist())}
    for space in (" ", "\n"):
        with suppress(UserError):  # a vocabulary of characters may lack it
            found.add(tuple(tokenizer.encode(space + mark).ids.tolist()))
    return tuple(sorted(found))


# ── networks ───────────────────────────────────────────────────────────────────────────────────────────────────


def build_scratch_thought(
    recipe: schema.Recipe, spec: schema.ThoughtSpec, tokenizer: Tokenizer, *, architecture: Mapping[str, Any] | None
) -> ThoughtNetwork:
    """A network of thoughts with weights drawn from the seed, on the CPU; `architecture` is of its codec."""
    mlp, hidden = gated_mlp(spec)
    trunk = ScratchTrunk(
        vocab_size=tokenizer.vocab_size,
        width=spec.width,
        layers=spec.layers,
        heads=spec.heads,
        mlp_width=hidden,
        dropout=spec.dropout,
        mlp=mlp,
    )
    if spec.head == "tied":
        trunk.tie_head()
    trunk.initialise(keyed_generator(recipe.seed, "weights"))
    return around(trunk, recipe, spec, tokenizer, start_id=tokenizer.eos_id, architecture=architecture)


def around(
    trunk: Trunk,
    recipe: schema.Recipe,
    spec: schema.ThoughtSpec | schema.ThoughtPretrainedSpec,
    tokenizer: Tokenizer,
    *,
    start_id: int,
    architecture: Mapping[str, Any] | None,
) -> ThoughtNetwork:
    """A trunk with all that makes it a network of thoughts, weights drawn from the seed, on the CPU.

    Raises:
        UserError: when the vocabulary has fewer logits than a vector has features that are to be taken from them, or
            nobody says what its codec is.
    """
    assert isinstance(recipe.objective, schema.ThoughtObjectiveSpec), "the schema refuses another objective"
    generator = keyed_generator(recipe.seed, "thought")
    if spec.latent == "codec":
        codec: nn.Module = build_frozen_codec(recipe, tokenizer, architecture=architecture)
    elif spec.latent == "own":
        codec = OwnTable(trunk.embedding)
    else:
        codec = LearnedTable(vocab_size=tokenizer.vocab_size, width=spec.table_width)
        codec.initialise(generator)
        codec.requires_grad_(spec.latent == "learned")
    assert isinstance(codec, LearnedTable | OwnTable | FrozenCodec)
    speaks = codec.width if spec.readout == "vectors" else None
    if spec.readout == "logit_columns" and codec.width > tokenizer.vocab_size:
        raise UserError(
            f"network.readout=logit_columns takes {codec.width} logits, as many as a token's vector has features, for "
            f"a vector, and the vocabulary has {tokenizer.vocab_size}. Give a larger tokenizer (tokenizer.kind=byte), "
            "or a narrower latent"
        )
    network = ThoughtNetwork(
        trunk,
        codec,
        sight={"bidirectional": BIDIRECTIONAL, "causal": CAUSAL}[spec.attention],
        start_id=start_id,
        remembers=recipe.objective.self_conditioning > 0,
        speaks=speaks,
        columns=codec.width if spec.readout == "logit_columns" else None,
        given=shown if spec.question == "shown" else hidden(tokenizer.mask_id),
        timed=spec.time == "shown",
        warp=TimeWarp() if recipe.objective.time_warping == "learned" else None,
    )
    network.initialise(generator)
    if speaks is not None and not writes(recipe):
        for parameter in trunk.projection():  # nothing that the network says goes through it
            parameter.requires_grad_(False)
    return network


def writes(recipe: schema.Recipe) -> bool:
    """Whether the network of a recipe also writes answers from left to right."""
    return isinstance(recipe.objective, schema.ThoughtObjectiveSpec) and recipe.objective.answer_weight > 0
