"""How text is drawn: functions that walk a time grid and own no noise mathematics."""

from remask.samplers.ancestral import ancestral
from remask.samplers.base import Denoiser, Frame, Prompt, blank_prompt
from remask.samplers.bijection import Bijection, bijective
from remask.samplers.blockwise import blockwise
from remask.samplers.confidence import confidence, entropy, margin
from remask.samplers.entropy_bounded import entropy_bounded
from remask.samplers.guidance import Guided
from remask.samplers.left_to_right import left_to_right
from remask.samplers.marginal import subset_nats
from remask.samplers.predictor_corrector import predictor_corrector
from remask.samplers.proofreading import by_chance, by_confidence, proofread
from remask.samplers.remasking import by_sureness, cap, remdm, rescale, while_held
from remask.samplers.tau_leaping import analytic, tau_leaping
from remask.samplers.transforms import identity, reshape_distribution

__all__ = [
    "Bijection",
    "Denoiser",
    "Frame",
    "Guided",
    "Prompt",
    "analytic",
    "ancestral",
    "bijective",
    "blank_prompt",
    "blockwise",
    "by_chance",
    "by_confidence",
    "by_sureness",
    "cap",
    "confidence",
    "entropy",
    "entropy_bounded",
    "identity",
    "left_to_right",
    "margin",
    "predictor_corrector",
    "proofread",
    "remdm",
    "rescale",
    "reshape_distribution",
    "subset_nats",
    "tau_leaping",
    "while_held",
]
