"""All that a recipe needs before a run can begin: what a user can get wrong is found here, before a run exists."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from remask.config.build import Progress, Text, build_model, build_sampler, build_text, resolve_device
from remask.config.schema import Recipe
from remask.data.batch import Batch
from remask.data.packing import PackedRows
from remask.errors import UserError
from remask.evaluation.likelihood import evaluation_batches
from remask.evaluation.trivial import fit_trivial
from remask.generation import check_length
from remask.model import Model


@dataclass(frozen=True, kw_only=True)
class Materials:
    """What a recipe needs before a run can begin.

    Attributes:
        recipe: the experiment.
        text: corpus, tokenizer and token caches.
        model: untrained.
        rows: the training split in rows.
        held_out: validation rows judged during training.
        trivial: figures of trivial predictors on those rows: unit → predictor → value.
        end_share: the share of training tokens that end a document.
    """

    recipe: Recipe
    text: Text
    model: Model
    rows: PackedRows
    held_out: Sequence[Batch]
    trivial: Mapping[str, Mapping[str, float]]
    end_share: float


def gather(recipe: Recipe, *, cache: Path, progress: Progress | None = None) -> Materials:
    """Builds all that a recipe names, without leaving a trace outside the cache.

    Raises:
        UserError: when something that the recipe names is not there, does not fit or is too small.
    """
    device = resolve_device(recipe.device)
    check_precision(recipe, device)
    text = build_text(recipe, cache=cache, progress=progress)
    rows = PackedRows(text.stores["train"], length=recipe.data.length)
    if "validation" not in text.stores:
        raise UserError("the text has no validation split: name one with data.validation=FILE")
    held_out_rows = PackedRows(text.stores["validation"], length=recipe.data.length)
    held_out = list(evaluation_batches(held_out_rows, limit=recipe.training.evaluate_rows))
    model = build_model(recipe, text.tokenizer, device=device)
    build_sampler(recipe.sampling, model)
    check_length(recipe.sampling.length or recipe.data.length, model)
    predictors = fit_trivial(text.stores["train"], text.tokenizer, cache=cache)
    nats = predictors.nats(held_out)
    tokens = sum(int(batch.targets.sum()) for batch in held_out)
    size = sum(int((batch.byte_lengths * batch.targets).sum()) for batch in held_out)
    trivial = {
        "nats_per_token": {name: value / tokens for name, value in nats.items()},
        "bits_per_byte": {name: value / math.log(2) / size for name, value in nats.items()},
    }
    return Materials(
        recipe=recipe,
        text=text,
        model=model,
        rows=rows,
        held_out=held_out,
        trivial=trivial,
        end_share=predictors.end_share,
    )


def check_precision(recipe: Recipe, device: torch.device) -> None:
    """Refuses an arithmetic that the device does not have.

    Raises:
        UserError: for float16 without a GPU, or bfloat16 on a GPU that only emulates it.
    """
    precision = recipe.training.precision
    if precision == "fp16" and device.type != "cuda":
        raise UserError(
            f"training.precision=fp16 needs a CUDA device, and this run is on {device}. Valid: float32, bf16"
        )
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UserError(f"training.precision=bf16: {device} has no bfloat16 arithmetic. Valid: float32, fp16")
