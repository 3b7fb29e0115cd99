"""`remask track`: a run's figures for a tracker, afterwards."""

from typing import Annotated

import typer

from remask.cli.options import RunReference


def track(
    run: RunReference,
    to: Annotated[str, typer.Option(help="wandb, trackio or tensorboard.")],
    project: Annotated[str | None, typer.Option(help="The tracker's project (default: the recipe's).")] = None,
    mode: Annotated[str | None, typer.Option(help="wandb: offline or online (default: the recipe's).")] = None,
) -> None:
    """Feed a finished or stopped run's metrics.jsonl to a tracker; what it holds of the run already is replaced."""
    from remask.cli.options import changed_recipe
    from remask.errors import UserError
    from remask.runs import Registry, runs_home

    registry = Registry(runs_home())
    record = registry.find(run)
    folder = registry.folder_of(record)
    if record.status == "running":
        raise UserError(
            f"run {record.id} is training. Wait for it or stop it; tracking.sinks feeds a run as it goes on"
        )
    if mode is None and to != "wandb":
        mode = "offline"  # a recipe's own is for wandb
    options = {"tracking.sinks": f"[{to}]", "tracking.project": project, "tracking.mode": mode}
    recipe = changed_recipe(folder, options)
    lines = folder.metrics()
    if not lines:
        raise UserError(f"run {record.id} has no metrics: {folder.metrics_path} is missing or empty")

    from remask.config.build.tracking import check_tracking, open_sink

    check_tracking(recipe.tracking)
    for name in recipe.tracking.sinks:
        told = recipe.model_dump(mode="json")
        sink = open_sink(name, recipe.tracking, run_id=record.id, folder=folder.path, recipe=told, known=lines)
        if sink.link:
            registry.update(record.id, links={**registry.get(record.id).links, sink.link[0]: sink.link[1]})
        sink.close(record.status)
        typer.echo(f"{name}: {len(lines)} lines of {record.id}. {HINTS[name].format(folder=folder.path)}")


HINTS = {
    "wandb": "Offline files: wandb sync {folder}/wandb/offline-run-*",
    "trackio": "Look: trackio show",
    "tensorboard": "Look: tensorboard --logdir {folder}/tensorboard",
}
"""What to do next with each tracker."""
