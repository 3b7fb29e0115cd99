"""What is minimised: each objective turns a network and a clean batch into nats and weights, never into a mean."""

from remask.objectives.base import Loss, Network, Objective
from remask.objectives.likelihood import (
    LikelihoodBound,
    generic_integrand,
    masking_integrand,
    rising_range,
    root_weight,
    spread_integrand,
    whole_range,
)
from remask.objectives.next_token import NextToken

__all__ = [
    "LikelihoodBound",
    "Loss",
    "Network",
    "NextToken",
    "Objective",
    "generic_integrand",
    "masking_integrand",
    "rising_range",
    "root_weight",
    "spread_integrand",
    "whole_range",
]
