"""Where names become objects: the only place that reads a recipe's kinds and constructs what they name."""

from remask.config.build.health import build_actions, build_monitor
from remask.config.build.model import build_model, check_compiler, resolve_device
from remask.config.build.sampling import (
    build_bijection,
    build_sampler,
    build_thinker,
    sampling_steps,
    valid_samplers,
)
from remask.config.build.text import Text, TextWatcher, build_feed, build_rows, build_text, build_text_for
from remask.config.build.tracking import build_sinks, check_tracking
from remask.config.build.training import build_curve, build_optimizers, describe_shape

__all__ = [
    "Text",
    "TextWatcher",
    "build_actions",
    "build_bijection",
    "build_curve",
    "build_feed",
    "build_model",
    "build_monitor",
    "build_optimizers",
    "build_rows",
    "build_sampler",
    "build_sinks",
    "build_text",
    "build_text_for",
    "build_thinker",
    "check_compiler",
    "check_tracking",
    "describe_shape",
    "resolve_device",
    "sampling_steps",
    "valid_samplers",
]
