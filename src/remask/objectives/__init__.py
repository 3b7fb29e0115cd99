"""What is minimised: each objective turns a network and a clean batch into nats and weights, never into a mean."""

from remask.objectives.base import BlockNetwork, Loss, Network, Objective
from remask.objectives.bijective import BijectiveLikelihood, all_steps, one_step
from remask.objectives.block_diffusion import BlockDiffusion
from remask.objectives.likelihood import (
    LikelihoodBound,
    generic_integrand,
    masking_integrand,
    rising_range,
    root_weight,
    spread_integrand,
    whole_range,
)
from remask.objectives.masked_language_model import MaskedLanguageModel
from remask.objectives.next_token import NextToken
from remask.objectives.proofreading import Proofreading
from remask.objectives.proposals import own_proposals, uniform_proposals
from remask.objectives.score_entropy import ScoreEntropy, absorbing_score_entropy, uniform_score_entropy

__all__ = [
    "BijectiveLikelihood",
    "BlockDiffusion",
    "BlockNetwork",
    "LikelihoodBound",
    "Loss",
    "MaskedLanguageModel",
    "Network",
    "NextToken",
    "Objective",
    "Proofreading",
    "ScoreEntropy",
    "absorbing_score_entropy",
    "all_steps",
    "generic_integrand",
    "masking_integrand",
    "one_step",
    "own_proposals",
    "rising_range",
    "root_weight",
    "spread_integrand",
    "uniform_proposals",
    "uniform_score_entropy",
    "whole_range",
]
