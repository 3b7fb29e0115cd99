"""`remask submit`: a training as a job of a cluster."""

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from remask.cli import options as option

if TYPE_CHECKING:
    from remask.config.schema import Recipe
    from remask.slurm import Job

CLUSTERS = ("slurm", "local")


def submit(
    arguments: option.RecipeWords = None,
    nodes: Annotated[int, typer.Option(min=1, help="Machines.")] = 1,
    processes_per_node: Annotated[int, typer.Option(min=1, help="Processes on each, one a GPU.")] = 1,
    minutes: Annotated[int, typer.Option(min=3, help="Time of the job; a run that needs more queues again.")] = 60,
    gpus_per_node: Annotated[
        int | None, typer.Option(min=0, help="GPUs to ask for (default: one a process if the recipe says cuda).")
    ] = None,
    cpus_per_process: Annotated[int, typer.Option(min=1, help="Cores for each process.")] = 1,
    partition: Annotated[
        str | None, typer.Option(help="SLURM's partition; without it the cluster's own choice.")
    ] = None,
    sbatch: Annotated[
        list[str] | None, typer.Option(metavar="OPTION=VALUE", help="A further option of sbatch: account=NAME.")
    ] = None,
    requeues: Annotated[int, typer.Option(min=0, help="How often the job may run out of time and queue again.")] = 3,
    cluster: Annotated[str, typer.Option(help="slurm, or local: this machine, one node.")] = "slurm",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the sbatch script and submit nothing.")] = False,
) -> None:
    """Hand a training to SLURM: torchrun on each node, and the same run again when the job is requeued."""
    from remask.cli.train import split_arguments
    from remask.config.load import load_recipe
    from remask.laboratory.space import refuse_missing_texts
    from remask.slurm import Job

    _refuse_unknown(cluster, nodes=nodes)
    recipe_name, overrides = split_arguments(arguments or [])
    recipe = load_recipe(recipe_name, overrides)
    _refuse_division(recipe, processes=nodes * processes_per_node)
    refuse_missing_texts(recipe)
    job = Job(
        name=recipe.name,
        nodes=nodes,
        processes=processes_per_node,
        minutes=minutes,
        cpus=cpus_per_process,
        gpus=_gpus(recipe, processes_per_node) if gpus_per_node is None else gpus_per_node,
        partition=partition,
        requeues=requeues,
        options=sbatch_options(sbatch or []),
    )
    if dry_run:
        _print_script(recipe, job)
    else:
        _hand_over(recipe, job, cast(Literal["slurm", "local"], cluster))


def _hand_over(recipe: "Recipe", job: "Job", cluster: Literal["slurm", "local"]) -> None:
    """Keeps the resolved recipe beside the job's logs, so that later changes of files do not reach a waiting job."""
    from remask import slurm
    from remask.config.load import dump_recipe
    from remask.runs import RunFolder, make_run_id, runs_home, write_atomic

    if recipe.tracking.sinks:
        from remask.config.build.tracking import check_tracking  # imports torch

        check_tracking(recipe.tracking)
    shape = f"N{job.nodes}x{job.processes}"
    name = make_run_id(recipe.name, shape=shape, moment=datetime.now(UTC))
    folder = RunFolder.create(runs_home().resolve() / "submissions", name)
    write_atomic(folder.recipe_path, dump_recipe(recipe))
    command = ["remask", "train", str(folder.recipe_path), "--run-file", str(folder.path / "run")]
    job_id = slurm.submit(command, job, folder=folder.path, cluster=cluster)
    typer.echo(f"submitted {job_id}: {job.nodes} x {job.processes} processes, {job.minutes} minutes")
    typer.echo(f"logs {folder.path}/{job_id}_0_log.err")
    typer.echo("next: remask runs")


def _print_script(recipe: "Recipe", job: "Job") -> None:
    from remask import slurm
    from remask.runs import runs_home

    folder = runs_home().resolve() / "submissions" / f"{recipe.name}_SUBMISSION"
    command = ["remask", "train", str(folder / "recipe.yaml"), "--run-file", str(folder / "run")]
    typer.echo(slurm.script(command, job, folder=folder), nl=False)


def _refuse_unknown(cluster: str, *, nodes: int) -> None:
    from remask.errors import UserError, did_you_mean

    if cluster not in CLUSTERS:
        raise UserError(f"--cluster {cluster}: {did_you_mean(cluster, CLUSTERS)}")
    if cluster == "local" and nodes > 1:
        raise UserError(f"--nodes {nodes} with --cluster local: this machine is one node. Leave --nodes out")


def _refuse_division(recipe: "Recipe", *, processes: int) -> None:
    """What the job would refuse when it starts, perhaps hours later."""
    from remask.errors import UserError

    rows = recipe.training.batch_size
    if rows % processes:
        nearest = sorted({max(rows // processes, 1) * processes, (rows // processes + 1) * processes})
        raise UserError(
            f"training.batch_size={rows} cannot be shared by {processes} processes. "
            f"Valid near it: {' or '.join(map(str, nearest))}"
        )
    if processes > 1 and (recipe.device == "mps" or ":" in recipe.device):
        raise UserError(f"device={recipe.device} is one device for {processes} processes. Valid: auto, cpu, cuda")


def _gpus(recipe: "Recipe", processes: int) -> int:
    return processes if recipe.device.startswith("cuda") else 0


def sbatch_options(given: list[str]) -> dict[str, str]:
    """Options of sbatch by their long names.

    Args:
        given: OPTION=VALUE each.

    Raises:
        UserError: one is written in another way.
    """
    from remask.errors import UserError

    for word in given:
        if not re.fullmatch(r"[a-z][a-z-]*=[^\n]+", word):
            raise UserError(f"--sbatch {word!r}: write OPTION=VALUE with the option's long name, as account=NAME")
    return dict(word.split("=", 1) for word in given)
