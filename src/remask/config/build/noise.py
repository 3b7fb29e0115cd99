"""Schedule, process and objective, from a recipe."""

import torch

from remask import processes, schedules
from remask.config import schema
from remask.config.build.concept_objectives import build_concept_bound, build_concept_objective
from remask.config.build.latents import build_autoencoder, build_gaussian, build_prior
from remask.config.build.orders import build_order
from remask.config.build.thought import build_thought
from remask.gaussian import GaussianProcess
from remask.objectives import (
    BijectiveLikelihood,
    BlockDiffusion,
    LikelihoodBound,
    MaskedLanguageModel,
    NextToken,
    ScoreEntropy,
    all_steps,
    generic_integrand,
    masking_integrand,
    one_step,
    rising_range,
    root_weight,
    spread_integrand,
    whole_range,
)
from remask.objectives.base import Objective
from remask.objectives.prompt_dropout import PromptDropout
from remask.objectives.proofreading import Proofreading
from remask.objectives.proposals import own_proposals, uniform_proposals
from remask.objectives.text_autoencoder import TextReconstruction
from remask.tokenizers import Tokenizer


def build_schedule(spec: schema.ScheduleSpec) -> schedules.Schedule:
    """The curve α(t) that a spec names."""
    match spec:
        case schema.LinearScheduleSpec():
            return schedules.Linear()
        case schema.CosineScheduleSpec():
            return schedules.Cosine()
        case schema.PolynomialScheduleSpec():
            return schedules.Polynomial(spec.power)
        case schema.LogLinearScheduleSpec():
            return schedules.LogLinear(spec.epsilon)


def build_process(spec: schema.ProcessSpec, tokenizer: Tokenizer) -> processes.CategoricalProcess | GaussianProcess:
    """The noise that a spec names, over the tokenizer's ids or the vectors that stand for them."""
    if isinstance(spec, schema.GaussianSpec):
        return build_gaussian(spec.noise)
    schedule = build_schedule(spec.schedule)
    size, mask = tokenizer.vocab_size, tokenizer.mask_id
    match spec:
        case schema.MaskingSpec():
            return processes.Masking(schedule=schedule, vocab_size=size, mask_id=mask)
        case schema.UniformSpec():
            return processes.Uniform(schedule=schedule, vocab_size=size, mask_id=mask)
        case schema.HybridSpec():
            return processes.Hybrid(schedule=schedule, vocab_size=size, mask_id=mask, uniform_share=spec.uniform_share)


def build_objective(
    recipe: schema.Recipe,
    process: processes.CategoricalProcess | GaussianProcess | None,
    tokenizer: Tokenizer,
    *,
    codec: schema.Recipe | None = None,
) -> Objective:
    """What a recipe asks to be minimised, some prompts masked where it says so.

    Args:
        recipe: the experiment.
        process: its noise on tokens, or on their vectors.
        tokenizer: text ⇄ ids.
        codec: the recipe of the finished network within this one's, where there is one.
    """
    objective = build_plain_objective(recipe, process, tokenizer, codec=codec)
    share = recipe.training.prompt_dropout
    return PromptDropout(objective=objective, share=share, mask_id=tokenizer.mask_id) if share else objective


def build_plain_objective(
    recipe: schema.Recipe,
    process: processes.CategoricalProcess | GaussianProcess | None,
    tokenizer: Tokenizer,
    *,
    codec: schema.Recipe | None = None,
) -> Objective:
    """The objective whatever becomes of the prompts; arguments as those of `build_objective`."""
    spec, steps = recipe.objective, recipe.training.steps
    if isinstance(spec, schema.NextTokenSpec):
        return NextToken(mask_id=tokenizer.mask_id)
    if isinstance(spec, schema.ThoughtObjectiveSpec):
        assert isinstance(process, GaussianProcess), "the schema refuses other noise"
        return build_thought(recipe, spec, process, tokenizer)
    assert isinstance(process, processes.CategoricalProcess), "the schema refuses a diffusion of tokens without noise"
    match spec:
        case schema.LikelihoodBoundSpec():
            return build_bound(spec, process, steps=steps)
        case schema.BijectiveSpec():
            return build_bijective(spec, process, steps=steps, seed=recipe.seed)
        case schema.BlockDiffusionSpec():
            return BlockDiffusion(bound=build_bound(spec, process, steps=steps), block_length=spec.block_length)
        case schema.ScoreEntropySpec():
            return ScoreEntropy(process=process, t_min=spec.t_min)
        case schema.MaskedLanguageModelSpec():
            assert isinstance(process, processes.Masking), "the schema refuses other noise"
            return MaskedLanguageModel(process=process, rate=spec.rate, t_min=spec.t_min)
        case schema.ProofreadingSpec():
            return build_proofreading(spec, process, steps=steps)
        case schema.ConceptBoundSpec():
            return build_concept_bound(recipe, spec, bound=build_bound(spec, process, steps=steps))
        case schema.ConceptMaskedSpec() | schema.ConceptTSDAESpec() | schema.ConceptContrastiveSpec():
            return build_concept_objective(spec, process)
        case schema.ConceptAutoencoderSpec():
            bound = build_bound(spec, process, steps=steps)
            return build_autoencoder(recipe, spec, bound=bound, eos_id=tokenizer.eos_id)
        case schema.TextAutoencoderSpec():
            ends = {"eos_id": tokenizer.eos_id, "mask_id": tokenizer.mask_id}
            return TextReconstruction(divergence=spec.divergence, **ends)
        case schema.ConceptPriorSpec():
            assert codec is not None, "the schema refuses another network"
            return build_prior(spec, process, codec)


def build_bound(
    spec: schema.WeightedBoundSpec, process: processes.CategoricalProcess, *, steps: int
) -> LikelihoodBound:
    """The bound of a process, with the fastest integrand that equals the generic one."""
    closed_forms = {
        processes.Masking: masking_integrand,
        processes.Uniform: spread_integrand,
        processes.Hybrid: spread_integrand,
    }
    rising = rising_range(start=spec.curriculum_start, steps=round(spec.curriculum_ratio * steps))
    return LikelihoodBound(
        process=process,
        integrand=closed_forms.get(type(process), generic_integrand),
        t_min=spec.t_min,
        reweight={"bound": torch.ones_like, "root": root_weight}[spec.weighting],
        curriculum=rising if spec.curriculum_ratio else whole_range,
    )


def build_bijective(
    spec: schema.BijectiveSpec, process: processes.CategoricalProcess, *, steps: int, seed: int
) -> BijectiveLikelihood:
    """The bound and a sampler's likelihood over a masking process, the warm-up in optimiser steps."""
    return BijectiveLikelihood(
        bound=build_bound(spec, process, steps=steps),
        order=build_order(spec.likelihood_reveal, seed=seed),
        steps=spec.likelihood_steps,
        weight=spec.likelihood_weight,
        warmup=round(spec.likelihood_warmup_ratio * steps),
        estimate={"one_step": one_step, "all_steps": all_steps}[spec.likelihood_estimate],
    )


def build_proofreading(
    spec: schema.ProofreadingSpec, process: processes.CategoricalProcess, *, steps: int
) -> Proofreading:
    """Both tasks over a masking process, the curricula in optimiser steps."""
    return Proofreading(
        mask_id=process.mask_id,
        vocab_size=process.vocab_size,
        schedule=process.schedule,
        t_min=spec.t_min,
        replaced_share=spec.replaced_share,
        proofreading_warmup_iters=round(spec.proofreading_warmup_ratio * steps),
        penalty_mask_correct=spec.penalty_mask_correct,
        masking_warmup_iters=round(spec.masking_warmup_ratio * steps),
        target_mask_prob=spec.target_mask_prob,
        weight_unmask_task=spec.weight_unmask_task,
        weight_remask_task=spec.weight_remask_task,
        reward_correct_unmask=spec.reward_correct_unmask,
        propose={"own": own_proposals, "uniform": uniform_proposals}[spec.replacements],
    )
