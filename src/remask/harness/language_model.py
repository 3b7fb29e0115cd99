"""The model type `remask` of lm-evaluation-harness."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.utils import simple_parse_args_string

from remask.config.build import build_sampler, resolve_device
from remask.config.schema import Recipe
from remask.errors import UserError, did_you_mean
from remask.finished import GREEDY, open_model, sampling_with
from remask.generation import generate
from remask.harness.scoring import Continuation, greedy_in_order, has_order, objective_nats, ordered_nats
from remask.model import Model
from remask.objectives.base import SourceNetwork
from remask.randomness import derive_seed, keyed_generator
from remask.samplers.base import Prompt

ROWS_AT_ONCE = 32
_LIKELIHOODS = ("objective", "ordered")
_DRAWING = ("until", "max_gen_toks", "do_sample", "temperature", "top_p")
_log = logging.getLogger(__name__)
T = TypeVar("T")


class RemaskLM(LM):
    """A run, judged by the harness; every argument can stand in `--model_args`.

    Args:
        run: a run id, a unique prefix, `last`, or a folder.
        likelihood: `objective`: the bound of a denoiser, by `draws` draws, and the exact likelihood of an
            autoregressive model; `ordered`: the exact probability with which the sampler that goes from left to right,
            one token a call, draws the continuation.
        draws: noise draws a continuation, for a bound.
        max_gen_toks: tokens to draw where a task does not say.
        seed: of all noise and draws.
        batch_size: rows at once; noise is keyed by the batch, so it belongs to a bound's protocol. `auto`: 32.
        max_batch_size: the most rows that `auto` may take.
        device: auto, cpu, cuda, cuda:N or mps.
        sampling: keys of the recipe's `sampling`, for tasks that generate.

    Raises:
        UserError: for a run that cannot be had, an unknown argument, or a value out of range.
    """

    def __init__(
        self,
        run: str = "last",
        *,
        likelihood: str = "objective",
        draws: int = 32,
        max_gen_toks: int = 64,
        seed: int = 1,
        batch_size: int | str = "auto",
        max_batch_size: int | None = None,
        device: str = "auto",
        **sampling: Any,
    ) -> None:
        super().__init__()
        if likelihood not in _LIKELIHOODS:
            raise UserError(f"likelihood={likelihood} is unknown; {did_you_mean(likelihood, _LIKELIHOODS)}")
        self._device = resolve_device(device)
        self.run = str(run)
        self.model, recipe = open_model(self.run, device=self._device)
        if isinstance(self.model.network, SourceNetwork):
            raise UserError(
                f"{self.run} reads given tokens apart from those it denoises, which the harness's tasks do not tell "
                "apart. Judge it by remask evaluate, or give the harness a run of another network"
            )
        self.recipe: Recipe = recipe.model_copy(update={"sampling": sampling_with(recipe, sampling)})
        self.likelihood, self.draws, self.seed = likelihood, _whole("draws", draws), _whole("seed", seed, least=0)
        self.max_gen_toks = _whole("max_gen_toks", max_gen_toks)
        most = ROWS_AT_ONCE if max_batch_size is None else min(ROWS_AT_ONCE, _whole("max_batch_size", max_batch_size))
        self.batch_size = most if batch_size == "auto" else _whole("batch_size", batch_size)
        if likelihood == "ordered" and not has_order(self.model):
            raise UserError(
                "likelihood=ordered needs noise that masks, and this model's noise replaces tokens. Use "
                "likelihood=objective"
            )

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None
    ) -> "RemaskLM":
        """A model from `--model_args`, which come before what the harness says of batches and device by itself."""
        return cls(**{key: value for key, value in (additional_config or {}).items() if value is not None} | arg_dict)

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict[str, Any] | None = None) -> "RemaskLM":
        """As `create_from_arg_obj`, from `key=value,key=value`."""
        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    # ── what the harness records ────────────────────────────────────────────────────────────────────────────────

    def get_model_info(self) -> dict[str, Any]:
        """What decides whether two figures may stand in one column."""
        exact = self.model.objective.exact
        bound = f"upper bound on -log p, {self.draws} noise draws a continuation, {self.batch_size} rows a batch"
        ordered = "exact for the sampler that draws one token a call from the left"
        objective = "exact, autoregressive" if exact else bound
        return {
            "remask_run": self.run,
            "likelihood": ordered if self.likelihood == "ordered" else objective,
            "draws": 1 if exact or self.likelihood == "ordered" else self.draws,
            "remask_seed": self.seed,
            "sampling": self.recipe.sampling.model_dump(exclude_none=True),
            "model_num_parameters": self.model.parameters,
            "max_length": self.model.length,
        }

    # ── likelihood ──────────────────────────────────────────────────────────────────────────────────────────────

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Natural log p(continuation | context) of each request, and whether greedy decoding from the left gives it.

        A model whose noise replaces tokens has no such decoding: there its own sampler is asked, greedily.
        """
        del disable_tqdm
        texts = [self._continuation(*request.args).within(self.model.length) for request in requests]
        order = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
        answers: list[tuple[float, bool]] = [(0.0, True)] * len(texts)
        for number, places in enumerate(_batches(order, self.batch_size)):
            nats, greedy = self._score([texts[place] for place in places], number=number)
            for place, value, same in zip(places, nats, greedy, strict=True):
                answers[place] = (-value, same)
                self.cache_hook.add_partial("loglikelihood", requests[place].args, answers[place])
        return answers

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Natural log p of each whole text, in windows of a row; every token is scored once.

        The last window keeps as much of the text before it as fits; the others begin without context.
        """
        del disable_tqdm
        windows = [
            (place, window)
            for place, request in enumerate(requests)
            for window in _windows(self._encode(request.args[0]), self.model.length)
        ]
        totals = [0.0] * len(requests)
        for number, part in enumerate(_batches(windows, self.batch_size)):
            for (place, _), nats in zip(part, self._nats([window for _, window in part], number=number), strict=True):
                totals[place] -= nats
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def _score(self, texts: Sequence[Continuation], *, number: int) -> tuple[list[float], list[bool]]:
        if self.likelihood == "ordered":
            return ordered_nats(self.model, texts)
        nats = self._nats(texts, number=number)
        return nats, greedy_in_order(self.model, texts) if has_order(self.model) else self._drawn_greedily(texts)

    def _nats(self, texts: Sequence[Continuation], *, number: int) -> list[float]:
        if self.likelihood == "ordered":
            return ordered_nats(self.model, texts)[0]
        generator = keyed_generator(self.seed, "harness", number, device=self.model.device)
        return objective_nats(self.model, texts, draws=self.draws, generator=generator)

    def _drawn_greedily(self, texts: Sequence[Continuation]) -> list[bool]:
        drawn = [self._draw([text.context], len(text.ids), {"top_p": GREEDY})[0] for text in texts]
        return [tuple(ids) == text.ids for ids, text in zip(drawn, texts, strict=True)]

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.model.tokenizer.encode(text).ids.tolist())

    def _continuation(self, context: str, continuation: str) -> Continuation:
        """The tokens of both as one text, cut where the context's tokens end; apart where they run together."""
        blanks = len(context) - len(context.rstrip())
        if blanks:  # a word's blank belongs to the word, as in training
            context, continuation = context[:-blanks], context[-blanks:] + continuation
        given, whole = self._encode(context), self._encode(context + continuation)
        if whole[: len(given)] != given or len(whole) == len(given):
            return Continuation(context=given, ids=self._encode(continuation))
        return Continuation(context=given, ids=whole[len(given) :])

    # ── generation ──────────────────────────────────────────────────────────────────────────────────────────────

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """A text after each context, up to the first stop string or end of text.

        As many tokens are drawn as the task says; a row holds no more than the model was trained on, of which the
        context gets the half at least that it needs.
        """
        del disable_tqdm
        plans = [self._plan(*request.args) for request in requests]
        answers = [""] * len(requests)
        groups: dict[tuple[Any, ...], list[int]] = {}
        for place, (context, tokens, changes, _) in enumerate(plans):
            groups.setdefault((len(context), tokens, *sorted(changes.items())), []).append(place)
        for places in groups.values():
            _, tokens, changes, _ = plans[places[0]]
            drawn = self._draw([plans[place][0] for place in places], tokens, changes)
            for place, ids in zip(places, drawn, strict=True):
                answers[place] = self._until(ids, plans[place][3])
                self.cache_hook.add_partial("generate_until", requests[place].args, answers[place])
        return answers

    def _plan(self, context: str, said: dict[str, Any]) -> tuple[tuple[int, ...], int, dict[str, Any], list[str]]:
        """Context ids, tokens to draw, changes to the sampling, and stop strings."""
        for name in said:
            if name not in _DRAWING:
                raise UserError(
                    f"the task asks for generation with {name}={said[name]}; {did_you_mean(name, _DRAWING)}"
                )
        ids, length = self._encode(context), self.model.length
        wanted = _whole("max_gen_toks", said.get("max_gen_toks", self.max_gen_toks))
        tokens = min(wanted, length - min(len(ids), length // 2))
        if tokens < wanted:
            _log.warning("%d tokens were asked for and %d fit beside the context", wanted, tokens)
        until = said.get("until") or []
        stops = [until] if isinstance(until, str) else list(until)
        return ids[max(0, len(ids) - (length - tokens)) :], tokens, _drawing(said), stops

    def _draw(self, contexts: Sequence[Sequence[int]], tokens: int, changes: dict[str, Any]) -> list[list[int]]:
        """The ids after contexts of one length."""
        model: Model[Any] = self.model
        spec = sampling_with(self.recipe, changes)
        given = torch.tensor([list(context) for context in contexts], dtype=torch.int64, device=model.device)
        ids = torch.nn.functional.pad(given, (0, tokens), value=model.mask_id)
        fixed = torch.arange(ids.shape[1], device=model.device).expand(ids.shape) < given.shape[1]
        seed = derive_seed(self.seed, "harness", given.shape[1], tokens)
        sampler, at_once = build_sampler(spec, model, seed=self.seed), self.recipe.evaluation.batch_size
        drawn = generate(model, sampler, Prompt(ids=ids, fixed=fixed), seed=seed, at_once=at_once)
        return drawn[:, given.shape[1] :].tolist()

    def _until(self, ids: Sequence[int], stops: Sequence[str]) -> str:
        eos = self.model.tokenizer.eos_id
        text = self.model.tokenizer.decode(ids[: ids.index(eos)] if eos in ids else ids)
        ends = [place for stop in stops if stop and (place := text.find(stop)) >= 0]
        return text[: min(ends)] if ends else text


def _drawing(said: dict[str, Any]) -> dict[str, Any]:
    """The harness's words for how to draw, in remask's: greedy, unless the task says otherwise."""
    temperature = said.get("temperature")
    if not said.get("do_sample", temperature not in (None, 0)) or temperature == 0:
        return {"top_p": GREEDY}
    return {name: float(said[name]) for name in ("temperature", "top_p") if said.get(name) is not None}


def _windows(ids: tuple[int, ...], length: int) -> Iterator[Continuation]:
    for start in range(0, len(ids), length):
        end = min(start + length, len(ids))
        yield Continuation(context=ids[max(0, end - length) : start], ids=ids[start:end])


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _whole(name: str, value: Any, *, least: int = 1) -> int:
    """A whole number, as `--model_args` may have spelled it."""
    if not str(value).isdecimal() or int(value) < least:
        raise UserError(f"{name}={value} was given; valid is a whole number from {least} on")
    return int(value)
