"""Keys of a recipe's text that are each valid but do not go together, or not with what reads it."""

from collections.abc import Callable, Iterator
from math import gcd

from remask.config.clash import Contradiction, clash
from remask.config.schema import DEFAULT_LANES, Recipe
from remask.config.schema.text import TASKS


def _source(recipe: Recipe) -> Iterator[Contradiction]:
    data = recipe.data
    if data.config is not None and not data.source.startswith("hf:"):
        but = f"data.source={data.source} is no Hugging Face dataset"
        give = "data.config=null, or data.source=hf:NAME"
        yield clash("data.source", "data.config", given=data.config, but=but, give=give)
    for place, entry in enumerate(data.mixture, start=1):
        if entry.config is not None and not entry.source.startswith("hf:"):
            but = f"{entry.source} is no Hugging Face dataset"
            given = f"entry {place} with config={entry.config}"
            yield clash("data.mixture", given=given, but=but, give="the entry without config, or source: hf:NAME")
    if data.weight != 1 and not data.mixture:
        but = "there is no other source to weigh it against"
        give = "data.weight=1, or data.mixture"
        yield clash("data.mixture", "data.weight", given=data.weight, but=but, give=give)


def _entries(recipe: Recipe) -> Iterator[Contradiction]:
    if recipe.data.streaming:  # which has no pairs at all
        return
    for place, entry in enumerate(recipe.data.mixture, start=1):
        if (entry.prompt_key is None) != (entry.response_key is None):
            given, other = (
                ("prompt_key", "response_key") if entry.response_key is None else ("response_key", "prompt_key")
            )
            but = f"its {other} is null, and pairs need both"
            yield clash("data.mixture", given=f"entry {place} with {given}", but=but, give=f"{other} too, or neither")


def _streaming(recipe: Recipe) -> Iterator[Contradiction]:
    data = recipe.data
    if not data.streaming:
        for key in ("lanes", "shuffle_documents", "sample_bytes"):
            if (given := getattr(data, key)) is not None:
                give = f"data.{key}=null, or data.streaming=true"
                yield clash("data.streaming", f"data.{key}", given=given, but="only a stream reads it", give=give)
        return
    for key in ("max_documents", "prompt_key", "response_key"):
        entries = [getattr(entry, key) for entry in data.mixture if getattr(entry, key) is not None]
        for name, given in [(f"data.{key}", getattr(data, key)), *(("data.mixture", f"{key}={e}") for e in entries)]:
            if given is not None:
                but = "streams are plain text, and read to their end"
                yield clash("data.streaming", name, given=given, but=but, give=f"{key}=null, or data.streaming=false")
    if recipe.tokenizer.kind == "character":
        but = "a stream may hold characters that its sample has not"
        yield clash("data.streaming", "tokenizer.kind", given="character", but=but, give="tokenizer.kind=byte (or bpe)")
    lanes, whole = data.lanes or DEFAULT_LANES, recipe.training.batch_size
    if whole % lanes:
        but = f"it does not divide training.batch_size={whole}"
        give = f"data.lanes={gcd(lanes, whole)}, or training.batch_size={-(-whole // lanes) * lanes}"
        yield clash("training.batch_size", "data.lanes", given=lanes, but=but, give=give)


def _pairs(recipe: Recipe) -> Iterator[Contradiction]:
    data = recipe.data
    if (data.prompt_key is None) != (data.response_key is None):
        given, other = ("prompt_key", "response_key") if data.response_key is None else ("response_key", "prompt_key")
        but = f"data.{other} is null, and pairs need both"
        give = f"data.{other} too, or neither"
        yield clash(f"data.{other}", f"data.{given}", given=getattr(data, given), but=but, give=give)
    if data.pad == "end" and not data.paired:
        but = "only prompt-response pairs are padded"
        give = "data.pad=none, or data.prompt_key and data.response_key"
        yield clash("data.prompt_key", "data.pad", given=data.pad, but=but, give=give)
    if data.pad == "end" and recipe.objective.kind == "next_token":
        but = "an autoregressive model ends a response by itself"
        yield clash("objective.kind", "data.pad", given=data.pad, but=but, give="data.pad=none")
    if data.source in TASKS:
        for key in ("validation", "test", "prompt_key", "response_key", "separator"):
            if getattr(data, key) is not None:
                but = f"source {data.source} makes its own pairs and splits"
                yield clash("data.source", f"data.{key}", given=getattr(data, key), but=but, give=f"data.{key}=null")
    if recipe.training.prompt_dropout and not data.paired and not data.prefix:
        but = "the text has no prompts"
        give = "training.prompt_dropout=0, or data.prompt_key and data.response_key"
        given = recipe.training.prompt_dropout
        yield clash("data.prompt_key", "training.prompt_dropout", given=given, but=but, give=give)
    if recipe.training.prompt_dropout and recipe.objective.kind == "next_token":
        but = "guidance masks the prompt, which an autoregressive model cannot read"
        given = recipe.training.prompt_dropout
        give = "training.prompt_dropout=0"
        yield clash("objective.kind", "training.prompt_dropout", given=given, but=but, give=give)


def _prefix(recipe: Recipe) -> Iterator[Contradiction]:
    data = recipe.data
    if data.prefix is None:
        if data.stride is not None:
            but = "only rows with a prefix overlap"
            yield clash("data.prefix", "data.stride", given=data.stride, but=but, give="data.stride=null")
        return
    if data.prefix >= data.length:
        but = f"data.length={data.length} leaves no token behind it to learn"
        give = f"data.prefix={data.length - 1} or less, or another data.length"
        yield clash("data.length", "data.prefix", given=data.prefix, but=but, give=give)
    if data.streaming:
        but = "a stream is packed, and rows with a prefix lie in one document each"
        give = "data.prefix=null, or data.streaming=false"
        yield clash("data.streaming", "data.prefix", given=data.prefix, but=but, give=give)
    if data.paired:
        but = "the prompts of pairs are given already"
        give = "data.prefix=null, or plain text"
        key = "data.source" if data.source in TASKS else "data.prompt_key"
        yield clash(key, "data.prefix", given=data.prefix, but=but, give=give)
    for place, entry in enumerate(data.mixture, start=1):
        if entry.prompt_key is not None:
            but = f"data.prefix={data.prefix} cuts plain text alone"
            yield clash(
                "data.prefix", "data.mixture", given=f"entry {place} of pairs", but=but, give="data.prefix=null"
            )


TEXT_CHECKS: tuple[Callable[[Recipe], Iterator[Contradiction]], ...] = (_source, _entries, _streaming)
PAIR_CHECKS: tuple[Callable[[Recipe], Iterator[Contradiction]], ...] = (_pairs, _prefix)
