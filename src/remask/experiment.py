"""A training run from its first word: a new one, or one that stopped."""

from datetime import UTC, datetime
from pathlib import Path

import torch

from remask.config.build import describe_shape
from remask.config.load import dump_recipe, load_recipe, recipe_hash
from remask.config.schema import Recipe
from remask.errors import UserError
from remask.materials import Materials, gather
from remask.runs import Registry, RunFolder, RunRecord, collect_provenance, make_run_id, timestamp, write_atomic
from remask.trainer import Run, Watcher


def start(recipe: Recipe, *, home: Path, cache: Path, watch: Watcher) -> RunRecord:
    """Trains a recipe in a new run folder.

    Args:
        recipe: the experiment.
        home: where runs live.
        cache: the cache home.
        watch: is told what happens.

    Returns:
        The finished run's record.

    Raises:
        UserError: before anything is written, for what the user got wrong.
        RunError: when the run breaks; its record says why, and its checkpoints stay.
        KeyboardInterrupt: after Ctrl-C, with a checkpoint of the last step written.
    """
    materials = gather(recipe, cache=cache, progress=watch.tokenizing)
    say_left_out(materials, watch)
    run_id = make_run_id(recipe.name, shape=describe_shape(recipe), moment=datetime.now(UTC))
    folder = RunFolder.create(home, run_id)
    with folder.lock():
        write_atomic(folder.recipe_path, dump_recipe(recipe))
        registry = Registry(home)
        record = registry.create(_first_record(materials, folder))
        run = Run(materials=materials, folder=folder, registry=registry, watch=watch, record=record)
        folder.append_metrics({"kind": "trivial", "step": 0, **materials.trivial})
        return run.drive()


def resume(reference: str, *, home: Path, cache: Path, watch: Watcher) -> RunRecord:
    """Goes on with a run from its newest whole checkpoint, exactly as if it had not stopped.

    Args:
        reference: a run id, a unique prefix, `last`, or a run's folder.
        home: where runs live.
        cache: the cache home.
        watch: is told what happens.

    Raises:
        UserError: when the run is unknown, finished, in use, or its text has changed; and as `start`.
    """
    registry = Registry(home)
    record = registry.find(reference)
    folder = registry.folder_of(record)
    if record.status == "finished":
        raise UserError(
            f"run {record.id} has finished all of its {record.steps} steps. Start a new run to train longer"
        )
    with folder.lock():
        recipe = load_recipe(str(folder.recipe_path), [])
        materials = gather(recipe, cache=cache, progress=watch.tokenizing)
        if record.data_hash not in (None, materials.text.corpus.fingerprint):
            raise UserError(f"the text of run {record.id} has changed since it began: {recipe.data.source}. Restore it")
        run = Run(materials=materials, folder=folder, registry=registry, watch=watch, record=record)
        run.restore()
        return run.drive()


def say_left_out(materials: Materials, watch: Watcher) -> None:
    """Tells of pairs that are longer than a row, and so neither trained on nor judged."""
    for split, rows in {"training": materials.rows, "validation": materials.held_out_rows}.items():
        if rows.left_out:
            total = rows.left_out + len(rows)
            watch.said(
                f"{rows.left_out} of {total} {split} pairs are longer than data.length={rows.length} tokens and are "
                "left out"
            )


def _first_record(materials: Materials, folder: RunFolder) -> RunRecord:
    recipe = materials.recipe
    return RunRecord(
        id=folder.run_id,
        recipe=recipe.name,
        family="baseline" if materials.model.process is None else "token",
        seed=recipe.seed,
        created=timestamp(),
        data_hash=materials.text.corpus.fingerprint,
        tokenizer_hash=materials.text.tokenizer.fingerprint,
        config_hash=recipe_hash(recipe),
        device=describe_device(materials.model.device),
        parameters=materials.model.parameters,
        steps=recipe.training.steps,
        lineage=[recipe.training.start_from] if recipe.training.start_from else [],
        trivial=dict(materials.trivial["bits_per_byte"]),
        **collect_provenance().record_fields(),
    )


def describe_device(device: torch.device) -> str:
    """A device with its name, e.g. `cuda:0 (NVIDIA H100)`."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
