"""The reconstruction task: the figure of a model that gives text no likelihood."""

from dataclasses import replace

from remask.config.schema import Recipe
from remask.config.words import describe_objective
from remask.data.windows import documents_of
from remask.errors import UserError
from remask.evaluation.assessment import assessed, assessment_measurement, draws_text, row_assessments
from remask.evaluation.likelihood import evaluation_batches, spread_indices
from remask.evaluation.measurement import Measurement
from remask.health.evidence import OWN_FIGURES
from remask.judgement.text import JudgedText, rows_identity, rows_protocol
from remask.model import Model
from remask.objectives.base import Assessed
from remask.objectives.concepts.autoencoder import ConceptAutoencoder


def check_reconstruction(model: Model, recipe: Recipe, text: JudgedText) -> None:
    """Refuses a model that has a likelihood.

    Raises:
        UserError: it is judged by that.
    """
    del text
    if assessed(model.objective) is None:
        raise UserError(
            f"objective {recipe.objective.kind} measures a likelihood, which says more. Give --task likelihood"
        )


def check_likelihood(model: Model, recipe: Recipe) -> None:
    """Refuses a model that gives text no likelihood.

    Raises:
        UserError: naming the tasks that it can be judged by.
    """
    if assessed(model.objective) is not None and draws_text(model.objective):
        raise UserError(
            f"objective {recipe.objective.kind} shows its network noisy vectors of the text that it predicts, which is "
            "no likelihood. Valid: --task reconstruction, --task answers"
        )
    check_draws(model, recipe)


def check_draws(model: Model, recipe: Recipe) -> None:
    """Refuses a model that draws no text.

    Raises:
        UserError: naming the tasks that it can be judged by.
    """
    if not draws_text(model.objective):
        raise UserError(
            f"objective {recipe.objective.kind} shows its network an encoding of the text that it predicts, which "
            "is no likelihood and draws no text. Valid: --task reconstruction, --task concepts, or sentence tasks"
        )


def told_of(recipe: Recipe) -> str:
    """What of a text the network is told before it predicts it, in words: `rate 0.5`."""
    spec = recipe.objective.model_dump(mode="json")
    return ", ".join(f"{key.replace('_', ' ')} {spec[key]}" for key in _TOLD if key in spec)


_TOLD = ("rate", "share", "views", "temperature", "latent_noise", "latent_time", "t_min")


def _counted(objective: Assessed) -> dict[str, str]:
    """Which tokens of responses are counted: not the ends of text that fill them up."""
    responses = isinstance(objective, ConceptAutoencoder) and objective.texts is not None
    return {"counted": "own targets of each row"} if responses else {}


def judge_reconstruction(model: Model, recipe: Recipe, text: JudgedText) -> list[Measurement]:
    """The model's own figure on held-out rows, beside what predictors of text get on the same ones."""
    objective, spec = assessed(model.objective), recipe.evaluation
    assert objective is not None, "checked before"
    batches = list(evaluation_batches(text.rows, limit=spec.rows))
    chosen = spread_indices(len(text.rows), spec.rows)
    rows = replace(
        row_assessments(model, batches, draws=spec.draws, seed=recipe.seed, at_once=spec.batch_size),
        documents=documents_of(text.rows, chosen),
    )
    tokens = sum(int(batch.targets.sum()) for batch in batches)
    plain = {name: nats / tokens for name, nats in text.predictors.nats(batches).items()}
    figure = assessment_measurement(
        rows,
        objective=objective,
        unit=OWN_FIGURES[objective.quantity],
        trivial=objective.trivial(batches, plain),
        protocol={
            "objective": describe_objective(recipe),
            "told": told_of(recipe),
            **_counted(objective),
            "rows": len(rows.nats),
            "draws": spec.draws,
            "ngram_training_bytes": text.predictors.fitted_bytes,
            **rows_protocol(model, recipe, text),
        },
        identity=rows_identity(model, recipe, text, chosen),
    )
    return [figure]
