"""The likelihood task: −log p of held-out text or its bound."""

from dataclasses import replace
from typing import cast

from remask.config.schema import Recipe
from remask.data.windows import documents_of
from remask.evaluation.likelihood import (
    evaluation_batches,
    likelihood_measurements,
    part_measurements,
    row_likelihoods,
    spread_indices,
)
from remask.evaluation.measurement import Measurement
from remask.judgement.text import JudgedText, rows_identity, rows_protocol
from remask.model import Model
from remask.objectives.base import Network, Parted
from remask.objectives.prompt_dropout import unwrapped


def judge_likelihood(model: Model, recipe: Recipe, text: JudgedText) -> list[Measurement]:
    """The likelihood, or its bound, on held-out rows."""
    spec = recipe.evaluation
    batches = list(evaluation_batches(text.rows, limit=spec.rows))
    end_share = text.predictors.end_share if text.rows.shows_ends else None
    chosen = spread_indices(len(text.rows), spec.rows)
    sums = replace(
        row_likelihoods(
            model, batches, draws=spec.draws, seed=recipe.seed, end_share=end_share, at_once=spec.batch_size
        ),
        documents=documents_of(text.rows, chosen),
    )
    exact, trivial = model.objective.exact, text.predictors.nats(batches)
    protocol = {
        "likelihood": "exact" if exact else "upper bound: " + " + ".join(sums.terms),
        "rows": len(sums.nats),
        "draws": 1 if exact else spec.draws,
        "ngram_training_bytes": text.predictors.fitted_bytes,
        **rows_protocol(model, recipe, text),
    }
    identity = rows_identity(model, recipe, text, chosen)
    whole = likelihood_measurements(sums, trivial_nats=trivial, protocol=protocol, identity=identity)
    objective = unwrapped(model.objective)
    if not isinstance(objective, Parted):
        return whole
    there = [batch.to(model.device) for batch in batches]
    own = objective.trivial_parts(cast(Network, model.network), there)
    told = {"trivial_rows": own, "trivial_nats": trivial, "protocol": protocol}
    return [*whole, *part_measurements(sums, objective.parts, **told)]
