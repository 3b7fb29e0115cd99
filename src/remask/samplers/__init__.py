"""How text is drawn: functions that walk a time grid and own no noise mathematics."""

from remask.samplers.ancestral import ancestral
from remask.samplers.base import Denoiser, Frame, Prompt, blank_prompt
from remask.samplers.confidence import confidence
from remask.samplers.left_to_right import left_to_right
from remask.samplers.transforms import identity, reshape_distribution

__all__ = [
    "Denoiser",
    "Frame",
    "Prompt",
    "ancestral",
    "blank_prompt",
    "confidence",
    "identity",
    "left_to_right",
    "reshape_distribution",
]
