"""The concepts task: what the concept vectors of a run carry, and what they are worth in nats."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from remask.config.load import load_recipe
from remask.config.saved import load_model
from remask.config.schema import Recipe
from remask.data.batch import Batch
from remask.data.windows import documents_of
from remask.errors import UserError
from remask.evaluation.assessment import assessed
from remask.evaluation.concept_gaps import (
    NONE,
    OWN,
    SHUFFLED,
    Change,
    ConceptSums,
    comparable_slots,
    gap_measurements,
    keeping,
    kept_measurements,
    lacking,
    ladder,
    own,
    recovered,
    row_nats,
    row_vectors,
    shuffled,
    slot_measurements,
    spread_slots,
)
from remask.evaluation.concepts import geometry_measurements
from remask.evaluation.likelihood import ROWS_AT_ONCE, evaluation_batches, row_likelihoods, spread_indices
from remask.evaluation.measurement import Measurement
from remask.judgement.text import JudgedText, open_judged_text, rows_identity, rows_protocol
from remask.model import Model
from remask.objectives.base import SourceNetwork
from remask.objectives.concepts.bound import ConceptBound
from remask.objectives.prompt_dropout import unwrapped
from remask.runs import Registry

_SLOT_DRAWS = 1
"""Noise draws a row for the slots left out in turn; the noise is that of the row under all slots."""


@dataclass(frozen=True, kw_only=True)
class Comparator:
    """Another run, whose likelihood on the same rows the concepts are held against.

    Attributes:
        option: how it was named, e.g. `--none`.
        run: its id.
        model: the run's.
        recipe: the run's.
        data_hash: its text's fingerprint.
    """

    option: str
    run: str
    model: Model
    recipe: Recipe
    data_hash: str | None


@dataclass(frozen=True, kw_only=True)
class ConceptTask:
    """The task, with the runs that R(C) needs.

    Attributes:
        none: a run that is shown no context.
        full: one that attends to all of it; both or neither.
    """

    none: Comparator | None = None
    full: Comparator | None = None

    def check(self, model: Model, recipe: Recipe, text: JudgedText) -> None:
        """Refuses a model without concepts, too few rows, and runs that were not judged on the same rows.

        Raises:
            UserError: what does not fit.
        """
        if not isinstance(model.network, SourceNetwork):
            raise UserError(
                "--task concepts is for a network that reads through concepts (network.kind=concept), and this one "
                "does not. Give --task likelihood"
            )
        if not comparable_slots(model.network) and not isinstance(unwrapped(model.objective), ConceptBound):
            raise UserError(
                "--task concepts: the number of concepts goes with the length of a text here, and nothing is decoded "
                "behind them that could miss one, so there is nothing to measure. Give --task reconstruction, or a "
                "sentence task"
            )
        rows = len(spread_indices(len(text.rows), recipe.evaluation.rows))
        if rows < 2:
            raise UserError(f"--task concepts compares rows, and there is {rows}: give 2 --rows or more")
        if (self.none is None) != (self.full is None):
            given, other = ("--full", "--none") if self.none is None else ("--none", "--full")
            raise UserError(f"{given} is given without {other}: R(C) is a share of what lies between the two")
        if self.none is None or self.full is None:
            return
        if not isinstance(unwrapped(model.objective), ConceptBound):
            raise UserError(
                "--none and --full: this model has no conditional likelihood that theirs could stand beside"
            )
        if self.none.run == self.full.run:
            raise UserError(
                f"--none and --full are both {self.none.run}: R(C) is a share of what lies between two runs. Give a "
                "run with network.encoder=none, and one with network.encoder=tokens"
            )
        for comparator in (self.none, self.full):
            _check_rows(comparator, model, recipe, text)

    def measure(self, model: Model, recipe: Recipe, text: JudgedText) -> list[Measurement]:
        """Geometry of the vectors; of a model with a conditional bound also its gaps, and R(C) where runs are given.

        Raises:
            UserError: as `check`.
        """
        self.check(model, recipe, text)
        spec = recipe.evaluation
        batches = list(evaluation_batches(text.rows, limit=spec.rows))
        protocol = {"rows": sum(map(len, batches)), **rows_protocol(model, recipe, text)}
        figures: list[Measurement] = []
        slots = comparable_slots(model.network)
        if slots:
            read = "given tokens" if bool((~batches[0].targets & (batches[0].segments > 0)).any()) else "whole rows"
            vectors = row_vectors(model, batches)
            if len(vectors) > 1:
                figures += geometry_measurements(vectors, protocol={"read": read, **protocol}, seed=recipe.seed)
            elif not isinstance(unwrapped(model.objective), ConceptBound):
                raise UserError(
                    f"--task concepts: {len(vectors)} of {protocol['rows']} rows have all {slots} concepts, and 2 or "
                    "more are compared. Give more --rows, or train with a smaller network.concepts or longer rows"
                )
        if not isinstance(unwrapped(model.objective), ConceptBound):
            return figures
        return figures + self._gaps(model, recipe, text, batches, protocol=protocol)

    def _gaps(
        self, model: Model, recipe: Recipe, text: JudgedText, batches: list[Batch], *, protocol: Mapping[str, object]
    ) -> list[Measurement]:
        spec = recipe.evaluation
        chosen = spread_indices(len(text.rows), spec.rows)
        identity = rows_identity(model, recipe, text, chosen)
        end_share = text.predictors.end_share if text.rows.shows_ends else None
        others = _others(text, chosen)
        documents = documents_of(text.rows, chosen)
        drawn = {"likelihood": "upper bound", "draws": spec.draws, **protocol}

        def nats(changes: Mapping[str, Change], draws: int) -> ConceptSums:
            common = {"seed": recipe.seed, "end_share": end_share}
            found = row_nats(model, batches, others, changes=changes, draws=draws, **common)
            return replace(found, documents=documents)

        sums = nats({OWN: own, SHUFFLED: shuffled, NONE: keeping(0), **_kept(model)}, spec.draws)
        figures = gap_measurements(sums, protocol=drawn, identity=identity)
        figures += kept_measurements(
            sums, trivial_nats=text.predictors.nats(batches), protocol=drawn, identity=identity
        )
        if self.none is not None and self.full is not None:
            beside = {"none": self.none.run, "full": self.full.run}
            rows = [self._rows(each, recipe, batches, end_share) for each in (self.none, self.full)]
            if not (rows[0] - rows[1]).sum():
                raise UserError(
                    f"--none {self.none.run} and --full {self.full.run} have the same nats on these rows, so that no "
                    "share of what lies between them can be told. Leave both out"
                )
            figures.append(recovered(sums, none=rows[0], full=rows[1], protocol={**drawn, **beside}, identity=identity))
        slots = _slots(model)
        if slots > 1:
            one_less = {OWN: own, **{f"slot {slot}": lacking(slot) for slot in spread_slots(slots)}}
            once = {**drawn, "draws": _SLOT_DRAWS}
            figures += slot_measurements(nats(one_less, _SLOT_DRAWS), protocol=once, identity=identity)
        return figures

    @staticmethod
    def _rows(
        other: Comparator, recipe: Recipe, batches: list[Batch], end_share: float | None
    ) -> npt.NDArray[np.float64]:
        draws = recipe.evaluation.draws
        return row_likelihoods(other.model, batches, draws=draws, seed=recipe.seed, end_share=end_share).nats


def _slots(model: Model) -> int:
    """C, of every text; 0 where there is none, or as many as a text has tokens."""
    return getattr(model.network, "concepts", None) or 0


def _kept(model: Model) -> dict[str, Change]:
    """The variants that keep the first concepts: of a model that was trained on such, else all of them alone."""
    objective, slots = unwrapped(model.objective), _slots(model)
    assert isinstance(objective, ConceptBound), "checked before"
    nested = slots > 1 and objective.nested_share > 0
    return {f"kept {k}": keeping(k) for k in (ladder(slots) if nested else [slots]) if slots}


def _others(text: JudgedText, chosen: npt.NDArray[np.int64]) -> list[Batch]:
    """For each judged row one half of all rows further on: seldom one of the same document."""
    partners = np.roll(chosen, -(len(chosen) // 2))
    return [text.rows.batch(partners[at : at + ROWS_AT_ONCE]) for at in range(0, len(partners), ROWS_AT_ONCE)]


def _check_rows(other: Comparator, model: Model, recipe: Recipe, text: JudgedText) -> None:
    """Refuses a run whose held-out rows are others.

    Raises:
        UserError: it reads another text, other tokens or other rows.
    """
    own_split = {"split": recipe.evaluation.split, "rows": recipe.evaluation.rows}
    theirs = other.recipe.model_copy(update={"evaluation": other.recipe.evaluation.model_copy(update=own_split)})
    found = open_judged_text(other.model, theirs, cache=text.cache, data_hash=other.data_hash)
    mine = rows_identity(model, recipe, text, spread_indices(len(text.rows), recipe.evaluation.rows))
    if mine != rows_identity(other.model, theirs, found, spread_indices(len(found.rows), theirs.evaluation.rows)):
        raise UserError(
            f"{other.option} {other.run} has other held-out rows than this run: its data, tokenizer, data.length, "
            "data.prefix or data.stride are others. Train it with those of this run"
        )


def load_comparator(option: str, reference: str, *, registry: Registry, device: torch.device) -> Comparator:
    """Another run by the name that a user gives.

    Args:
        option: what it was given with, e.g. `--none`.
        reference: a run id, a unique prefix, `last`, or a folder.
        registry: of the runs.
        device: where it computes.

    Raises:
        UserError: there is no such run, it has no finished model, or it gives text no likelihood.
    """
    record = registry.find(reference)
    folder = registry.folder_of(record)
    model, _ = load_model(folder.model_path, device=device)
    recipe = load_recipe(str(folder.recipe_path))
    if assessed(model.objective) is not None:
        raise UserError(
            f"{option} {record.id} gives text no likelihood (objective {recipe.objective.kind}), and R(C) is a share "
            "of likelihoods. Give a run of recipe concept-diffusion, mdlm or ar"
        )
    return Comparator(option=option, run=record.id, model=model, recipe=recipe, data_hash=record.data_hash)
