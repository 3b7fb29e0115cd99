"""Samplers, from a recipe."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from remask import processes, samplers, schedules
from remask.config import schema
from remask.config.build.orders import build_order
from remask.config.contradictions import MASKS_ONLY
from remask.config.thought_contradictions import LATENT_SAMPLERS
from remask.errors import UserError
from remask.gaussian import GaussianProcess
from remask.generation import Sampler
from remask.imagination import ImaginingNetwork, imagine
from remask.model import Model
from remask.objectives import BlockDiffusion
from remask.objectives.base import SourceNetwork
from remask.objectives.concepts.prior import ConceptPrior
from remask.objectives.prompt_dropout import unwrapped
from remask.objectives.proofreading import Proofreading
from remask.reasoning import Thinker, Thought, draw_thought, thought_objective
from remask.samplers.base import OnStep, Prompt
from remask.samplers.gaussian import ddim, ddpm, heun
from remask.samplers.proofreading import by_chance, by_confidence
from remask.samplers.remasking import Strategy

Walk = Callable[..., Any]

ANY_NOISE = ("ancestral", "analytic", "tau_leaping", "predictor_corrector")
LOOP_TIME, LOOP_SHARE = 0.05, 0.5
"""Where ReMDM's loop stands still, and the share of the steps that it does (arXiv:2503.00307, section 4)."""
LATENT_STEPS = 100
"""Steps of a sampler of concept vectors where `latent_steps` is null: they cost little beside those of the text."""
USUAL_REVEAL = "random"
"""The order of the sampler `bijective` where `reveal` is null."""


def build_sampler(spec: schema.SamplingSpec, model: Model, *, seed: int) -> Sampler:
    """The way to draw from a model that a spec names.

    Args:
        spec: names it.
        model: to draw from.
        seed: the recipe's; it decides the order of revealing that is called random, and no draw.

    Raises:
        UserError: when the model cannot be drawn from in this way, with the ways that it can.
    """
    transform = samplers.reshape_distribution(temperature=spec.temperature, top_p=spec.top_p)
    valid = valid_samplers(model)
    if spec.sampler not in valid:
        raise UserError(f"sampler={spec.sampler} does not fit this model. Valid for it: {', '.join(valid)}")
    check_blocks(spec, model)
    if isinstance(model.process, GaussianProcess):
        think = build_thinker(spec, model)
        return lambda prompt, generator, on_step: think(prompt, generator, on_step).ids
    stop = model.tokenizer.eos_id if spec.stop else None
    if spec.sampler == "left_to_right":
        return lambda prompt, generator, on_step: samplers.left_to_right(
            model, prompt=prompt, generator=generator, transform=transform, on_step=on_step, stop=stop
        )
    walk, times = _walk(spec, seed=seed), _times(spec)
    if spec.block_length is not None and spec.sampler != "bijective":  # which counts its own blocks
        walk = partial(samplers.blockwise, block_length=spec.block_length, walk=walk, stop=stop)
    begin = _beginning(spec, model)
    if spec.guidance == 0:
        return lambda prompt, generator, on_step: walk(
            begin(prompt, generator), times, prompt=prompt, generator=generator, transform=transform, on_step=on_step
        )
    return lambda prompt, generator, on_step: walk(
        samplers.Guided(begin(prompt, generator), prompt=prompt, scale=spec.guidance),
        times,
        prompt=prompt,
        generator=generator,
        transform=transform,
        on_step=on_step,
    )


def build_thinker(spec: schema.SamplingSpec, model: Model) -> Thinker:
    """The way to draw thoughts that a spec names: what `build_sampler` draws with, but with the vectors.

    Raises:
        UserError: when the model draws none, or another sampler is named.
    """
    latest = thought_objective(model).diffusion.t_max
    if spec.sampler not in LATENT_SAMPLERS:
        raise UserError(f"sampler={spec.sampler} does not fit this model. Valid for it: {', '.join(LATENT_SAMPLERS)}")
    return partial(
        _think,
        model,
        walk={"ddpm": ddpm, "ddim": ddim, "heun": heun}[spec.sampler],
        times=[latest * time for time in _times(spec)],
        guidance=spec.guidance,
        transform=samplers.reshape_distribution(temperature=spec.temperature, top_p=spec.top_p),
    )


def _think(model: Model, prompt: Prompt, generator: torch.Generator, on_step: OnStep, **how: Any) -> Thought:
    return draw_thought(model, prompt, generator=generator, on_step=on_step, **how)


def _beginning(spec: schema.SamplingSpec, model: Model) -> Callable[[Prompt, torch.Generator], Any]:
    """(prompt, generator) → what a sampler of tokens draws from: a model that has read the prompt, or drawn concepts.

    Raises:
        UserError: guidance is asked of a model that takes no prompt.
    """
    objective, network = unwrapped(model.objective), model.network
    if not isinstance(objective, ConceptPrior):
        return lambda prompt, generator: model.under(prompt.fixed)
    assert isinstance(network, ImaginingNetwork)
    if spec.guidance:
        raise UserError(f"guidance={spec.guidance:g}: this model takes no prompt to be guided by. Set guidance=0")
    walk = {"ddpm": ddpm, "ddim": ddim, "heun": heun}[spec.latent_sampler or "ddpm"]
    steps, start = spec.latent_steps or LATENT_STEPS, objective.diffusion.t_max
    times = schedules.time_grid(steps, start=start, end=objective.channel.time)
    return lambda prompt, generator: imagine(network, objective, prompt, walk=walk, times=times, generator=generator)


def build_bijection(spec: schema.SamplingSpec, model: Model, *, seed: int) -> samplers.Bijection:
    """The sampler `bijective` of a spec, to be run both ways: by the model's own probabilities, at temperature 1.

    Args:
        spec: says order, steps and blocks; it may name another sampler.
        model: of masking noise.
        seed: the recipe's; it decides the order of revealing that is called random.

    Raises:
        UserError: when the model's noise is not masking, its network reads given tokens apart, or blocks are others.
    """
    if not isinstance(model.process, processes.Masking):
        noise = "autoregressive" if model.process is None else f"of {type(model.process).__name__.lower()} noise"
        raise UserError(f"this model is {noise}, and only masked tokens are revealed in an order: give one of masking")
    if isinstance(model.network, SourceNetwork):
        raise UserError(
            "this model reads given tokens apart from those it draws, and its texts have no noise to be encoded as: "
            "give a run of another network, e.g. of recipe mdlm"
        )
    check_blocks(spec, model)
    return samplers.Bijection(
        model=model,
        order=build_order(spec.reveal or USUAL_REVEAL, seed=seed),
        steps=spec.steps,
        block_length=spec.block_length,
    )


def _walk(spec: schema.SamplingSpec, *, seed: int) -> Walk:
    """The sampler of a spec as a function of model, times, prompt, generator, transform and on_step."""
    match spec.sampler:
        case "entropy_bounded":
            return _without_times(partial(samplers.entropy_bounded, budget=0.5 if spec.budget is None else spec.budget))
        case "remdm":
            return partial(samplers.remdm, strategy=_remasking(spec))
        case "bijective":
            order = build_order(spec.reveal or USUAL_REVEAL, seed=seed)
            return partial(samplers.bijective, order=order, block_length=spec.block_length)
        case "predictor_corrector":
            steps = 1 if spec.corrector_steps is None else spec.corrector_steps
            return partial(samplers.predictor_corrector, corrector_steps=steps)
        case "proofreading":
            return partial(
                samplers.proofread,
                threshold=0.2 if spec.threshold is None else spec.threshold,
                finish=0.25 if spec.finish is None else spec.finish,
                order={"confidence": by_confidence, "chance": by_chance}[spec.order or "confidence"],
            )
        case name:
            return {
                "ancestral": samplers.ancestral,
                "analytic": samplers.analytic,
                "tau_leaping": samplers.tau_leaping,
                "confidence": samplers.confidence,
                "margin": samplers.margin,
                "entropy": samplers.entropy,
            }[name]


def _without_times(walk: Walk) -> Walk:
    """A sampler that needs no grid as one that is given one."""
    return lambda model, times, **rest: walk(model, **rest)


def _remasking(spec: schema.SamplingSpec) -> Strategy:
    """How much ReMDM masks again; `loop` does so while the grid of `_times` stands still."""
    eta = 0.02 if spec.eta is None else spec.eta
    match spec.remasking or "cap":
        case "cap":
            return samplers.cap(eta)
        case "rescale":
            return samplers.rescale(eta)
        case "confidence":
            return samplers.by_sureness(samplers.rescale(eta))
        case "loop":
            return samplers.while_held(samplers.cap(eta))


def _times(spec: schema.SamplingSpec) -> list[float]:
    if spec.remasking == "loop":
        return schedules.held_time_grid(spec.steps, at=LOOP_TIME, share=LOOP_SHARE)
    return {"equal": schedules.time_grid, "smooth": schedules.smooth_time_grid}[spec.grid](spec.steps)


def check_blocks(spec: schema.SamplingSpec, model: Model) -> None:
    """Block diffusion is drawn in the blocks that it was trained on; other models in blocks of any length.

    Raises:
        UserError: when the block length does not fit the model.
    """
    objective = unwrapped(model.objective)
    # only a network that never looks at later blocks needs no mask to show for them
    shows_no_later = isinstance(objective, BlockDiffusion) and model.reader is not None and spec.guidance == 0
    if spec.block_length is not None and not (isinstance(model.process, processes.Masking) or shows_no_later):
        raise UserError(
            f"block_length={spec.block_length}: only masking noise is drawn in blocks. Leave block_length out"
        )
    if isinstance(objective, BlockDiffusion) and spec.block_length != objective.block_length:
        given = "null" if spec.block_length is None else spec.block_length
        raise UserError(
            f"block_length={given}: this model was trained on blocks of {objective.block_length} tokens; give "
            f"block_length={objective.block_length}"
        )


def valid_samplers(model: Model) -> list[str]:
    """The samplers that fit a model's noise."""
    if model.process is None:
        return ["left_to_right"]
    if isinstance(model.process, GaussianProcess):
        return list(LATENT_SAMPLERS)
    if not isinstance(model.process, processes.Masking):
        return list(ANY_NOISE)
    own = ["proofreading"] if isinstance(unwrapped(model.objective), Proofreading) else []
    return [*ANY_NOISE, *MASKS_ONLY, *own]


def sampling_steps(spec: schema.SamplingSpec, length: int) -> int:
    """Steps that a sample is expected to take: the grid's, those of every block, or one a token at most."""
    if spec.sampler in ("left_to_right", "entropy_bounded"):
        return length
    return spec.steps if spec.block_length is None else spec.steps * -(-length // spec.block_length)
