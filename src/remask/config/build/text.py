"""Text and tokenizer, from a recipe."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from remask.config import schema
from remask.config.build.sources import Sources, build_sources
from remask.data.corpora import Corpus
from remask.data.feed import Feed, RowsFeed
from remask.data.mixing import Mixture
from remask.data.packing import PackedRows, Rows
from remask.data.pairs import FilledPairRows, PairRows
from remask.data.store import Progress, TokenStore, build_stores
from remask.data.stream_feed import LanePlan, StreamFeed
from remask.data.vocabulary import corpus_bpe, corpus_characters
from remask.data.windows import WindowRows
from remask.tokenizers import ByteTokenizer, Tokenizer, huggingface_tokenizer

SHUFFLE_DOCUMENTS = 1024
"""Documents of a stream that are shuffled together where the recipe does not say."""


@runtime_checkable
class TextWatcher(Protocol):
    """Is told how far work on a text has come: UTF-8 bytes done, and how many in all, about (None: not known)."""

    def learning(self, done: int, total: int | None) -> None:
        """A vocabulary is being learned."""
        ...

    def tokenizing(self, done: int, total: int | None) -> None:
        """The text is being tokenized."""
        ...


@dataclass(frozen=True, kw_only=True)
class Text:
    """A recipe's text, ready to be read in rows.

    Attributes:
        sources: the documents.
        tokenizer: text ⇄ ids.
        stores: the token caches of the main source by split; of a stream, those of its sample.
        others: the training caches of the mixture's further sources.
    """

    sources: Sources
    tokenizer: Tokenizer
    stores: dict[str, TokenStore]
    others: tuple[TokenStore, ...] = ()

    @property
    def corpus(self) -> Corpus:
        """The main source, from which held-out text comes."""
        return self.sources.main

    @property
    def fingerprint(self) -> str:
        """A hash of all text that training and evaluation see."""
        return self.sources.fingerprint


def build_text(recipe: schema.Recipe, *, cache: Path, watch: TextWatcher | None = None) -> Text:
    """Opens the texts, makes or finds the tokenizer, and builds or maps the token caches."""
    sources = build_sources(recipe.data, cache=cache)
    learning, tokenizing = (None, None) if watch is None else (watch.learning, watch.tokenizing)
    tokenizer = build_tokenizer(recipe.tokenizer, sources.learned_from, cache=cache, progress=learning)
    stores = [
        build_stores(corpus, tokenizer, cache=cache, progress=tokenizing) for corpus in (sources.main, *sources.others)
    ]
    others = tuple(store["train"] for store in stores[1:])
    return Text(sources=sources, tokenizer=tokenizer, stores=stores[0], others=others)


def build_text_for(recipe: schema.Recipe, tokenizer: Tokenizer, *, cache: Path) -> Text:
    """As `build_text`, with a tokenizer that is there already, and the main source's caches only."""
    sources = build_sources(recipe.data, cache=cache)
    return Text(sources=sources, tokenizer=tokenizer, stores=build_stores(sources.main, tokenizer, cache=cache))


def build_rows(data: schema.DataSpec, store: TokenStore) -> Rows:
    """A split in rows: packed text, windows of one document each, or one prompt-response pair a row."""
    if store.prompt_lengths is None and data.prefix is not None:
        return WindowRows(store, length=data.length, given=data.prefix, stride=data.stride)
    if store.prompt_lengths is None:
        return PackedRows(store, length=data.length)
    return {"none": PairRows, "end": FilledPairRows}[data.pad](store, length=data.length)


def build_feed(recipe: schema.Recipe, text: Text) -> Feed:
    """What a recipe's training reads."""
    data, training = recipe.data, recipe.training
    stores = (text.stores["train"], *text.others)
    mixture = Mixture((data.weight, *(entry.weight for entry in data.mixture)))
    if not text.sources.streams:
        rows, *others = (build_rows(data, store) for store in stores)
        return RowsFeed(
            rows,
            others=others,
            mixture=mixture,
            batch_size=training.batch_size,
            micro_batch_size=training.micro_batch_size,
            seed=recipe.seed,
            workers=data.workers,
        )
    plan = LanePlan(
        streams=text.sources.streams,
        mixture=mixture,
        tokenizer=text.tokenizer,
        length=data.length,
        lanes=data.lanes or schema.DEFAULT_LANES,
        shuffle=data.shuffle_documents or SHUFFLE_DOCUMENTS,
        seed=recipe.seed,
    )
    return StreamFeed(
        plan,
        bytes_per_target=[store.text_bytes_total / len(store) for store in stores],
        batch_size=training.batch_size,
        micro_batch_size=training.micro_batch_size,
        workers=data.workers,
    )


def build_tokenizer(
    spec: schema.TokenizerSpec, corpus: Corpus, *, cache: Path, progress: Progress | None = None
) -> Tokenizer:
    """The tokenizer of a recipe; one that is made from the corpus is kept in the cache under its fingerprint."""
    match spec:
        case schema.ByteTokenizerSpec():
            return ByteTokenizer()
        case schema.CharacterTokenizerSpec():
            return corpus_characters(corpus, cache=cache, progress=progress)
        case schema.BPETokenizerSpec():
            learned = {"vocab_size": spec.vocab_size, "lowercase": spec.lowercase}
            return corpus_bpe(corpus, **learned, cache=cache, progress=progress)
        case schema.HuggingFaceTokenizerSpec():
            return huggingface_tokenizer(spec.name)
