"""From a prompt in words to sampled texts, and the record of how one of them came about."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from remask.data.batch import Batch
from remask.errors import UserError
from remask.model import Model
from remask.randomness import keyed_generator
from remask.samplers.base import Frame, OnStep, Prompt, blank_prompt, silent
from remask.tokenizers import Tokenizer

Sampler = Callable[[Prompt, torch.Generator, OnStep], Tensor]
"""(prompt, generator, on_step) → tokens [B L]."""

TEXTS_AT_ONCE = 32
"""Samples of one batch where a recipe does not say: draws are keyed by the batch, so they must not depend on memory."""
FRAMES = 12
"""States of a trajectory that are kept beside the start."""
_GAP = re.compile(r"\[MASK(?:\*([^\]]*))?\]")


def encode_prompt(text: str, tokenizer: Tokenizer, *, length: int) -> tuple[list[int], list[bool]]:
    """A prompt's ids and which of them are fixed, filled up to `length` with free places.

    `[MASK]` stands for one free token and `[MASK*20]` for twenty; all other text is fixed. Without a gap the text is a
    prefix, and what follows it is free.

    Args:
        text: the prompt.
        tokenizer: the model's.
        length: L, tokens of the whole sample.

    Returns:
        ids and fixed, `length` of each; free places hold the mask.

    Raises:
        UserError: when the prompt leaves nothing to draw, is longer than a sample, or cannot be encoded.
    """
    ids: list[int] = []
    fixed: list[bool] = []
    end = 0
    for gap in _GAP.finditer(text):
        _append_text(text[end : gap.start()], tokenizer, ids, fixed)
        free = _free_tokens(gap, length=length)
        ids += [tokenizer.mask_id] * free
        fixed += [False] * free
        end = gap.end()
    _append_text(text[end:], tokenizer, ids, fixed)
    if len(ids) > length:
        raise UserError(
            f"the prompt has {len(ids)} tokens, gaps included, and a sample has {length}. Shorten the prompt or raise "
            "--length"
        )
    ids += [tokenizer.mask_id] * (length - len(ids))
    fixed += [False] * (length - len(fixed))
    if all(fixed):
        raise UserError(f"the prompt fills all {length} tokens of a sample: raise --length, or leave a gap [MASK*20]")
    return ids, fixed


def _free_tokens(gap: re.Match[str], *, length: int) -> int:
    """How many tokens a gap leaves free; one that no sample can hold counts as one too many."""
    written = gap.group(1)
    if written is None:
        return 1
    if not re.fullmatch(r"0*[1-9][0-9]*", written, re.ASCII):
        raise UserError(f"the prompt has the gap {gap.group()}: write [MASK] for one free token or [MASK*20] for 20")
    digits = written.lstrip("0")
    return min(int(digits[:10]), length + 1)


def _append_text(text: str, tokenizer: Tokenizer, ids: list[int], fixed: list[bool]) -> None:
    if text:
        encoded = tokenizer.encode(text).ids.tolist()
        ids += encoded
        fixed += [True] * len(encoded)


def encode_prompts(
    texts: Sequence[str], tokenizer: Tokenizer, *, length: int, device: torch.device | str = "cpu"
) -> Prompt:
    """Prompts for one sample each, of whatever lengths; see `encode_prompt`.

    Raises:
        UserError: as there; the message says which prompt.
    """
    encoded = []
    for number, text in enumerate(texts, start=1):
        try:
            encoded.append(encode_prompt(text, tokenizer, length=length))
        except UserError as error:
            raise UserError(f"prompt {number}: {error}") from None
    return Prompt(
        ids=torch.tensor([ids for ids, _ in encoded], device=device),
        fixed=torch.tensor([fixed for _, fixed in encoded], device=device),
    )


def repeat_prompt(text: str | None, tokenizer: Tokenizer, *, count: int, length: int, device: torch.device) -> Prompt:
    """The same prompt for `count` samples of `length` tokens; None for no prompt."""
    if text is None:
        return blank_prompt(count, length, device=device)
    ids, fixed = encode_prompt(text, tokenizer, length=length)
    return Prompt(
        ids=torch.tensor(ids, device=device).repeat(count, 1),
        fixed=torch.tensor(fixed, device=device).repeat(count, 1),
    )


def has_gap(text: str) -> bool:
    """Whether a prompt says itself which tokens are free."""
    return _GAP.search(text) is not None


def pair_prompt(batch: Batch, *, device: torch.device | str = "cpu") -> Prompt:
    """The prompts of rows of pairs, with all places behind them free."""
    fixed = (batch.segments != 0) & ~batch.targets
    return Prompt(ids=batch.ids.to(device), fixed=fixed.to(device))


def ended_at(ids: Sequence[int], fixed: Sequence[bool], *, eos_id: int) -> int | None:
    """The place of the first end of text behind the last given token; None where there is none.

    Args:
        ids: a sample.
        fixed: which of its tokens the prompt gave.
        eos_id: the end of text.
    """
    start = max((place for place, given in enumerate(fixed) if given), default=-1) + 1
    return next((place for place in range(start, len(ids)) if ids[place] == eos_id), None)


def check_length(length: int, model: Model) -> int:
    """The length of a sample, when the model was trained on rows at least as long.

    Raises:
        UserError: when it was not.
    """
    if not 1 <= length <= model.length:
        raise UserError(
            f"length {length} was asked for; the model was trained on rows of {model.length} tokens. Valid: 1 to "
            f"{model.length}"
        )
    return length


def unwatched(done: int, total: int) -> None:
    """Nobody is told how far a work has come."""
    del done, total


def generate(
    model: Model,
    sampler: Sampler,
    prompt: Prompt,
    *,
    seed: int,
    on_step: OnStep = silent,
    at_once: int = TEXTS_AT_ONCE,
    watch: Callable[[int, int], None] = unwatched,
) -> Int[Tensor, "N L"]:
    """Draws one sample a row of `prompt`, a batch at a time, on the model's device, without dropout.

    Args:
        model: the model.
        sampler: the way to draw.
        prompt: given tokens and the number of samples [N L].
        seed: with the batch's place, the key of all draws.
        on_step: sees the states of the first batch.
        at_once: samples of a batch; with another number, other samples are drawn.
        watch: is told after each batch how many samples are drawn, of how many.
    """
    was_training = model.network.training
    model.network.eval()
    drawn = []
    for place, start in enumerate(range(0, prompt.ids.shape[0], at_once)):
        rows = slice(start, start + at_once)
        part = Prompt(ids=prompt.ids[rows], fixed=prompt.fixed[rows])
        generator = keyed_generator(seed, "sample", place, device=model.device)
        drawn.append(sampler(part, generator, on_step if place == 0 else silent))
        watch(min(start + at_once, len(prompt.ids)), len(prompt.ids))
    model.network.train(was_training)
    return torch.cat(drawn)


@dataclass
class Trajectory:
    """Follows the first sample of a batch from noise to text; hand `record` to a sampler as `on_step`.

    Attributes:
        tokenizer: shows tokens.
        steps: the number of steps that are expected; the states kept are spread over so many.
        fixed: positions given by the prompt [L].
    """

    tokenizer: Tokenizer
    steps: int
    fixed: Sequence[bool]

    def __post_init__(self) -> None:
        self._last: list[int] = []
        self._revealed: list[int] = []
        self._frames: list[dict[str, Any]] = []
        self._end: dict[str, Any] = {"step": 0}

    @property
    def taken(self) -> int:
        """The number of steps that were taken: fewer than expected by samplers that stop by themselves."""
        return int(self._end["step"])

    def record(self, frame: Frame) -> None:
        """Takes note of a state."""
        now = frame.z[0].tolist()
        if not self._last:
            self._revealed = [0] * len(now)
        for i, (old, new) in enumerate(zip(self._last, now, strict=False)):
            if old != new:
                self._revealed[i] = frame.step
        self._last = now
        self._end = {"step": frame.step, "time": frame.t, "tokens": self._texts(now)}
        if frame.step % max(1, -(-self.steps // FRAMES)) == 0:
            self._frames.append(self._end)

    def to_json(self) -> dict[str, Any]:
        """Final tokens, the step at which each took its value (0: given by the prompt), and the kept states.

        A token that noise drew and no step changed stands from the first step on.
        """
        revealed = [0 if given else max(step, 1) for given, step in zip(self.fixed, self._revealed, strict=True)]
        last = [] if self._end in self._frames[-1:] else [self._end]
        return {"tokens": self._texts(self._last), "revealed": revealed, "frames": [*self._frames, *last]}

    def _texts(self, ids: Sequence[int]) -> list[str | None]:
        mask = self.tokenizer.mask_id
        return [None if token == mask else self.tokenizer.token_text(token) for token in ids]


def together(*watchers: OnStep) -> OnStep:
    """Hands each state to all of `watchers` in order."""

    def watch(frame: Frame) -> None:
        for watcher in watchers:
            watcher(frame)

    return watch
