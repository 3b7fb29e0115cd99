"""Where names become objects: the only place that reads a recipe's kinds and constructs what they name."""

from remask.config.build.model import build_model, resolve_device
from remask.config.build.sampling import build_sampler, sampling_steps, valid_samplers
from remask.config.build.text import Progress, Text, build_rows, build_text, build_text_for
from remask.config.build.training import build_curve, build_optimizers, describe_shape

__all__ = [
    "Progress",
    "Text",
    "build_curve",
    "build_model",
    "build_optimizers",
    "build_rows",
    "build_sampler",
    "build_text",
    "build_text_for",
    "describe_shape",
    "resolve_device",
    "sampling_steps",
    "valid_samplers",
]
