"""A finished model by the name of its run or by its folder, and its recipe with other ways to draw."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from remask.config.problems import validate
from remask.config.saved import load_model
from remask.config.schema import Recipe, SamplingSpec
from remask.errors import UserError, did_you_mean, printable
from remask.model import Model
from remask.runs import Registry, runs_home

GREEDY = 1e-9
"""A nucleus this small holds the likeliest token alone, so a draw from it is the argmax."""
_NOT_OF_ONE_SAMPLER = ("block_length", "length", "latent_sampler", "latent_steps")


def model_folder(reference: str) -> Path:
    """The folder of the model that a run id, a unique prefix, `last`, a run's folder or a model's folder names.

    Raises:
        UserError: when none or more than one run fits.
    """
    folder = Path(reference).expanduser()
    if (folder / "config.json").is_file():
        return folder
    registry = Registry(runs_home())
    return registry.folder_of(registry.find(reference)).model_path


def open_model(reference: str, *, device: torch.device) -> tuple[Model[Any], Recipe]:
    """The model that `model_folder` finds, on `device` and in evaluation mode, with its recipe.

    Raises:
        UserError: when there is none, or it is unfinished or damaged.
    """
    return load_model(model_folder(reference), device=device)


def sampling_with(recipe: Recipe, changes: Mapping[str, Any]) -> SamplingSpec:
    """The recipe's `sampling` with some keys changed, checked as a recipe on disk is.

    A change of sampler gives up the keys that belong to the old sampler alone.

    Args:
        recipe: the model's.
        changes: keys of `sampling` and their values.

    Raises:
        UserError: for an unknown key, a value out of range, or keys that do not go together.
    """
    fields = SamplingSpec.model_fields
    for name in changes:
        if name not in fields:
            raise UserError(f"{name} is no way to change sampling; {did_you_mean(name, fields)}")
    data = recipe.model_dump()
    if changes.get("sampler", recipe.sampling.sampler) != recipe.sampling.sampler:
        own = [name for name, field in fields.items() if field.default is None and name not in _NOT_OF_ONE_SAMPLER]
        data["sampling"] |= dict.fromkeys(own)
    data["sampling"] |= changes
    changed, problems = validate(data)
    if changed is None:
        raise UserError("\n".join(printable(problem.message) for problem in problems))
    return changed.sampling
