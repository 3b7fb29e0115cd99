"""The levels task: the bound's loss at each level of noise."""

from remask.config.schema import Recipe
from remask.config.words import describe_noise
from remask.errors import UserError
from remask.evaluation.levels import has_levels, level_measurements, row_levels
from remask.evaluation.likelihood import evaluation_batches
from remask.evaluation.measurement import Measurement
from remask.judgement.text import JudgedText, rows_protocol
from remask.model import Model
from remask.objectives.base import Parted
from remask.objectives.prompt_dropout import unwrapped

LEVELS = 10


def check_levels(model: Model, recipe: Recipe, text: JudgedText) -> None:
    """Refuses a model without levels of noise.

    Raises:
        UserError: the model is autoregressive, or pays for concepts of a text before its tokens.
    """
    del recipe, text
    if isinstance(unwrapped(model.objective), Parted):
        raise UserError(
            "this model's bound is that of concepts and of a text given them, which no level of noise on tokens shows. "
            "Give --task likelihood, whose rate and distortion are the two parts"
        )
    if not has_levels(model.objective):
        raise UserError(
            "an autoregressive model has no levels of noise, and its likelihood is exact. Give --task likelihood"
        )


def judge_levels(model: Model, recipe: Recipe, text: JudgedText, *, levels: int = LEVELS) -> list[Measurement]:
    """The loss at each of some levels of noise, on the rows that the likelihood is measured on.

    Args:
        model: a denoiser.
        recipe: rows, and how many draws each has over all levels: as many a level as make up at least so many.
        text: held-out rows.
        levels: how many.

    Raises:
        UserError: the model is autoregressive.
    """
    check_levels(model, recipe, text)
    spec = recipe.evaluation
    batches = list(evaluation_batches(text.rows, limit=spec.rows))
    draws = -(-spec.draws // levels)
    facts = {"seed": recipe.seed, "unigram": text.predictors.unigram, "at_once": spec.batch_size}
    sums = row_levels(model, batches, levels=levels, draws=draws, **facts)
    return level_measurements(
        sums,
        protocol={
            "likelihood": "diffusion term of the upper bound, by level of noise",
            # under other noise, a level is another quantity; only the whole bound is the same one
            "noise": describe_noise(recipe),
            "levels": levels,
            "draws_a_level": draws,
            "rows": len(sums.tokens),
            **rows_protocol(model, recipe, text),
        },
    )
