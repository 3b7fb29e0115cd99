"""Trackers of experiments, from a recipe."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from remask import sinks
from remask.config import schema
from remask.errors import UserError

Record = Mapping[str, Any]


def check_tracking(spec: schema.TrackingSpec) -> None:
    """Refuses trackers that cannot be fed, before a run exists.

    Raises:
        UserError: a tracker's package is not installed, or nobody is logged in to send figures online.
    """
    for name in spec.sinks:
        found = find_spec(name)
        if found is None or found.origin is None:  # a folder of this name, as W&B leaves behind, is no package
            raise UserError(f"tracking.sinks has {name}, which is not installed: pip install 'remask[{name}]'")
    if "wandb" in spec.sinks and spec.mode == "online":
        import wandb

        if not wandb.login(prompt=False, verify=False):
            raise UserError(
                "tracking.mode=online needs a login to W&B: run `wandb login`, set WANDB_API_KEY, "
                "or give tracking.mode=offline"
            )


def build_sinks(
    spec: schema.TrackingSpec,
    *,
    run_id: str,
    folder: Path,
    recipe: Mapping[str, Any],
    known: Sequence[Record],
    warn: Callable[[str], None],
) -> list[sinks.Sink]:
    """The trackers of a recipe, each holding exactly the known lines, and guarded: they fail without the run.

    Args:
        spec: the recipe's section.
        run_id: the run's id.
        folder: the run's folder, in which TensorBoard and W&B keep their files.
        recipe: the resolved recipe, as JSON can hold it.
        known: the lines of metrics.jsonl so far, after it was trimmed; they are replayed.
        warn: is told, once for each tracker, that it failed and what to do.

    Raises:
        UserError: as `check_tracking`.
    """
    check_tracking(spec)
    return [
        sinks.Guarded(
            name,
            partial(open_sink, name, spec, run_id=run_id, folder=folder, recipe=recipe, known=known),
            warn=warn,
            remedy=f"afterwards: remask track {run_id} --to {name}",
        )
        for name in dict.fromkeys(spec.sinks)
    ]


def open_sink(
    name: str,
    spec: schema.TrackingSpec,
    *,
    run_id: str,
    folder: Path,
    recipe: Mapping[str, Any],
    known: Sequence[Record],
) -> sinks.Sink:
    """One tracker, which holds exactly the known lines; its failures are its own exceptions.

    Args:
        name: wandb, trackio or tensorboard.
        spec: the recipe's section.
        run_id: the run's id.
        folder: the run's folder.
        recipe: the resolved recipe, as JSON can hold it.
        known: the lines of metrics.jsonl so far.
    """
    match name:
        case "wandb":
            return sinks.WeightsAndBiases(
                run_id, project=spec.project, folder=folder, mode=spec.mode, config=recipe, known=known
            )
        case "trackio":
            return sinks.Trackio(run_id, project=spec.project, config=recipe, known=known)
        case "tensorboard":
            return sinks.TensorBoard(folder / "tensorboard", known=known)
        case _:
            raise AssertionError(f"the schema lets no tracker {name} pass")
