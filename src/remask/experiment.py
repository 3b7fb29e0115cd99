"""A training run from its first word: a new one, or one that stopped; in one process, or in each of several."""

from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path

import torch

from remask.book import Book, RunBook
from remask.config.build import build_sinks, check_tracking, describe_shape, resolve_device
from remask.config.load import differs, dump_recipe, load_recipe, recipe_hash, setup_hash
from remask.config.schema import Recipe
from remask.config.words import (
    describe_architecture,
    describe_data,
    describe_family,
    describe_objective,
    describe_tokenizer,
    extra_losses,
)
from remask.errors import UserError
from remask.flops import active_parameters, training_flops
from remask.materials import Materials, gather
from remask.parallel import World, joined, launched, local_device
from remask.runs import Registry, RunFolder, RunRecord, collect_provenance, make_run_id, timestamp, write_atomic
from remask.trainer import Run, Unwatched, Watcher


def start(recipe: Recipe, *, home: Path, cache: Path, watch: Watcher) -> RunRecord:
    """Trains a recipe in a new run folder.

    Args:
        recipe: the experiment.
        home: where runs live; the same folder for all processes.
        cache: the cache home.
        watch: is told what happens, by the first process only.

    Returns:
        The finished run's record.

    Raises:
        UserError: before anything is written, for what the user got wrong.
        RunError: when the run breaks; its record says why, and its checkpoints stay.
        KeyboardInterrupt: after Ctrl-C, with a checkpoint of the last step written.
    """
    check_tracking(recipe.tracking)
    launch = launched()
    device = local_device(resolve_device(recipe.device), launch)
    with joined(device) as world:
        watch = watch if world.is_main else Unwatched()
        materials = gather(recipe, cache=cache, device=device, processes=world.size, watch=watch)
        say_left_out(materials, watch)
        say_not_taken(materials, watch)
        run_id = make_run_id(recipe.name, shape=describe_shape(recipe), moment=datetime.now(UTC))
        folder = RunFolder(world.on_main(lambda: str(RunFolder.create(home, run_id).path)))
        with _locked(world, folder):
            book = _new_book(world, materials, folder, home=home, watch=watch)
            run = Run(materials=materials, folder=folder, book=book, world=world)
            book.open(step=0, trivial=materials.trivial)
            return run.drive(watch)


def resume(reference: str, *, home: Path, cache: Path, watch: Watcher) -> RunRecord:
    """Goes on with a run from its newest whole checkpoint, exactly as if it had not stopped.

    Args:
        reference: a run id, a unique prefix, `last`, or a run's folder.
        home: where runs live; the same folder for all processes.
        cache: the cache home.
        watch: is told what happens, by the first process only.

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
    recipe = load_recipe(str(folder.recipe_path), [])
    check_tracking(recipe.tracking)
    launch = launched()
    device = local_device(resolve_device(recipe.device), launch)
    with joined(device) as world, _locked(world, folder):
        watch = watch if world.is_main else Unwatched()
        changed = differs(str(folder.recipe_path), record.config_hash)
        for complaint in (*folder.complaints(steps=record.step), *filter(None, [changed])):
            watch.said(complaint)
        materials = gather(recipe, cache=cache, device=device, processes=world.size, watch=watch)
        if record.data_hash not in (None, materials.text.fingerprint):
            raise UserError(f"the text of run {record.id} has changed since it began: {recipe.data.source}. Restore it")
        book = _book(world, record, recipe, folder, registry=registry, watch=watch)
        run = Run(materials=materials, folder=folder, book=book, world=world)
        run.restore()
        return run.drive(watch)


def _locked(world: World, folder: RunFolder) -> AbstractContextManager[None]:
    return folder.lock() if world.is_main else nullcontext()


def _new_book(world: World, materials: Materials, folder: RunFolder, *, home: Path, watch: Watcher) -> Book:
    record = _first_record(materials, folder, world)
    registry = Registry(home)
    if world.is_main:
        write_atomic(folder.recipe_path, dump_recipe(materials.recipe))
        record = registry.create(record)
    return _book(world, record, materials.recipe, folder, registry=registry, watch=watch)


def _book(
    world: World, record: RunRecord, recipe: Recipe, folder: RunFolder, *, registry: Registry, watch: Watcher
) -> Book:
    if not world.is_main:
        return Book(record)
    told = recipe.model_dump(mode="json")
    return RunBook(
        folder=folder,
        registry=registry,
        record=record,
        logged=watch.logged,
        said=watch.said,
        open_sinks=lambda known: build_sinks(
            recipe.tracking, run_id=record.id, folder=folder.path, recipe=told, known=known, warn=watch.said
        ),
    )


def say_left_out(materials: Materials, watch: Watcher) -> None:
    """Tells of pairs that are longer than a row, or documents without a target: neither trained on nor judged."""
    rows = materials.held_out_rows
    counts = {"training": (materials.feed.left_out, materials.feed.rows), "validation": (rows.left_out, len(rows))}
    for split, (left_out, kept) in counts.items():
        if left_out and (given := materials.recipe.data.prefix) is not None:
            watch.said(
                f"{left_out} {split} documents have no token behind the first data.prefix={given} and are left out"
            )
        elif left_out:
            total = left_out + (kept or 0)
            watch.said(
                f"{left_out} of {total} {split} pairs are longer than data.length={rows.length} tokens and are left out"
            )


def say_not_taken(materials: Materials, watch: Watcher) -> None:
    """Tells of the part of a network that training begins without, where all others are another run's."""
    for origin in materials.origins:
        if "but" in origin:
            watch.said(
                f"{origin['from']} has another {origin['but']} than this recipe: its other weights are taken, and this "
                f"{origin['but']} begins as it is drawn"
            )


def _first_record(materials: Materials, folder: RunFolder, world: World) -> RunRecord:
    recipe = materials.recipe
    device = describe_device(materials.device)
    return RunRecord(
        id=folder.run_id,
        recipe=recipe.name,
        family=describe_family(recipe),
        seed=recipe.seed,
        created=timestamp(),
        architecture=describe_architecture(recipe),
        data=describe_data(recipe),
        tokenizer=describe_tokenizer(recipe, vocab_size=materials.text.tokenizer.vocab_size),
        objective=describe_objective(recipe),
        extra_losses=extra_losses(recipe),
        setup_hash=setup_hash(recipe, data_hash=materials.text.fingerprint),
        data_hash=materials.text.fingerprint,
        tokenizer_hash=materials.text.tokenizer.fingerprint,
        config_hash=recipe_hash(recipe),
        device=device if world.size == 1 else f"{world.size} processes, {recipe.training.parallel}, first on {device}",
        parameters=materials.model.parameters,
        active_parameters=active_parameters(materials.model.network),
        flops_per_token=_flops_per_token(materials),
        train_tokens=materials.feed.targets,
        steps=recipe.training.steps,
        lineage=[dict(origin) for origin in materials.origins],
        trivial=dict(materials.headline_trivial),
        **collect_provenance().record_fields(),
    )


def _flops_per_token(materials: Materials) -> float | None:
    """Measured on a row of the text; None where the whole network waits on another device to be shared out."""
    model = materials.model
    return training_flops(model, materials.held_out[0]) if model.device == materials.device else None


def describe_device(device: torch.device) -> str:
    """A device with its name, e.g. `cuda:0 (NVIDIA H100)`."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
