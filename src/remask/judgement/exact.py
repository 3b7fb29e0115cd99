"""The exact-likelihood task: the probability of held-out text under a named sampler."""

from dataclasses import dataclass, replace
from typing import get_args

from remask.config.build import build_bijection
from remask.config.build.sampling import USUAL_REVEAL
from remask.config.schema import Recipe, Reveal, SamplingSpec
from remask.data.batch import Batch
from remask.errors import UserError, did_you_mean
from remask.evaluation.exact import RowNats, exact_measurements, row_exact_likelihoods
from remask.evaluation.likelihood import RowSums, evaluation_batches, row_likelihoods, spread_indices
from remask.evaluation.measurement import Measurement
from remask.judgement.text import JudgedText, rows_identity, rows_protocol
from remask.model import Model
from remask.processes import Masking
from remask.samplers.marginal import LARGEST, subset_nats

ANY_ORDER = "any_order"
"""The mean over all orders of one token a round: the law of no single order, by a sum over subsets of a row."""
REVEALS = (*get_args(Reveal), ANY_ORDER)


@dataclass(frozen=True, kw_only=True)
class ExactTask:
    """The task with the order that its sampler reveals tokens in.

    Attributes:
        reveal: its name, one of `REVEALS`; None for the recipe's own.
    """

    reveal: str | None

    def check(self, model: Model, recipe: Recipe, text: JudgedText) -> None:
        """Refuses a model whose sampler's probabilities are not known, and an order that does not fit it.

        Raises:
            UserError: its noise is not masking, or it reads from left to right alone; or rows are too long for a sum
                over subsets.
        """
        if self.reveal is not None and self.reveal not in REVEALS:
            raise UserError(f"--reveal {self.reveal} is unknown; {did_you_mean(self.reveal, REVEALS)}")
        if model.process is None:
            if self.reveal not in (None, "left_to_right"):
                raise UserError(
                    f"--reveal {self.reveal}: an autoregressive model draws from left to right. Leave --reveal out"
                )
            return
        if not isinstance(model.process, Masking):
            noise = type(model.process).__name__.lower()
            raise UserError(
                f"--task exact-likelihood is for models of masking noise, where a token is revealed once, and this one "
                f"is of {noise} noise. Its bound is --task likelihood"
            )
        build_bijection(_drawing(recipe, self.reveal), model, seed=recipe.seed)
        if self.reveal == ANY_ORDER:
            _refuse_long_rows(list(evaluation_batches(text.rows, limit=recipe.evaluation.rows)))

    def measure(self, model: Model, recipe: Recipe, text: JudgedText) -> list[Measurement]:
        """The exact likelihood on the rows that the bound is measured on, with the sampler in its protocol.

        Raises:
            UserError: as `check`.
        """
        self.check(model, recipe, text)
        limit = recipe.evaluation.rows
        batches = list(evaluation_batches(text.rows, limit=limit))
        sums, how = self._sums(model, recipe, text, batches)
        return exact_measurements(
            sums,
            trivial_nats=text.predictors.nats(batches),
            protocol={
                "likelihood": "exact" if model.process is None else "exact: " + " + ".join(sums.terms),
                **how,
                "rows": len(sums.nats),
                "ngram_training_bytes": text.predictors.fitted_bytes,
                **rows_protocol(model, recipe, text),
            },
            identity=rows_identity(model, recipe, text, spread_indices(len(text.rows), limit)),
        )

    def _sums(
        self, model: Model, recipe: Recipe, text: JudgedText, batches: list[Batch]
    ) -> tuple[RowSums, dict[str, object]]:
        """The sums, and the part of the protocol that names the sampler."""
        length = recipe.data.length
        if not isinstance(model.process, Masking):
            how: dict[str, object] = {"sampler": "left_to_right", "reveal": "left_to_right", "steps": length}
            at_once = recipe.evaluation.batch_size
            sums = row_likelihoods(model, batches, draws=1, seed=recipe.seed, at_once=at_once)
            return sums, how | {"network_calls": 1}
        spec = _drawing(recipe, self.reveal)
        reveal = spec.reveal or USUAL_REVEAL
        most = min(spec.steps, spec.block_length or length)  # rounds beyond one a token reveal nothing
        how = {"sampler": "bijective", "reveal": reveal, "steps": most}
        nats: RowNats = _by_rounds(spec, model, recipe.seed)
        if self.reveal == ANY_ORDER:
            how = {"sampler": "bijective, orders mixed", "reveal": ANY_ORDER, "steps": length}
            nats = subset_nats
        else:
            how |= {} if spec.block_length is None else {"block_length": spec.block_length}
            how |= {"permutation": recipe.seed} if reveal == "random" else {}
        end_share = text.predictors.end_share if text.rows.shows_ends else None
        how_many = {"end_share": end_share, "at_once": recipe.evaluation.batch_size}
        sums, calls = row_exact_likelihoods(model, batches, process=model.process, nats=nats, **how_many)
        return sums, how | {"network_calls": calls}


def _drawing(recipe: Recipe, reveal: str | None) -> SamplingSpec:
    """The recipe's way to draw, in this order."""
    return recipe.sampling.model_copy(update={} if reveal in (None, ANY_ORDER) else {"reveal": reveal})


def _by_rounds(spec: SamplingSpec, model: Model, seed: int) -> RowNats:
    bijection = build_bijection(spec, model, seed=seed)
    return lambda rows, ids, free: replace(bijection, model=rows).nats(ids, free).sum(-1)


def _refuse_long_rows(batches: list[Batch]) -> None:
    most = max((int(batch.targets.sum(-1).max()) for batch in batches), default=0)
    if most > LARGEST:
        raise UserError(
            f"--reveal {ANY_ORDER} sums over all subsets of a row's tokens, at most {LARGEST}, and these rows have up "
            f"to {most}. Give a fixed order, or --task likelihood for a bound on it"
        )
