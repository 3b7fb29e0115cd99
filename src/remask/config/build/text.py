"""Text and tokenizer, from a recipe."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from remask.config import schema
from remask.data.corpora import Corpus, open_corpus
from remask.data.packing import PackedRows, Rows
from remask.data.pairs import FilledPairRows, PairRows
from remask.data.store import TokenStore, build_stores
from remask.data.vocabulary import corpus_bpe
from remask.tokenizers import ByteTokenizer, Tokenizer, character_tokenizer, huggingface_tokenizer

Progress = Callable[[int], None]
"""Called while tokenizing with the UTF-8 bytes of text done so far."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """A recipe's text, ready to be read in rows.

    Attributes:
        corpus: the documents.
        tokenizer: text ⇄ ids.
        stores: the token caches by split.
    """

    corpus: Corpus
    tokenizer: Tokenizer
    stores: dict[str, TokenStore]


def build_text(recipe: schema.Recipe, *, cache: Path, progress: Progress | None = None) -> Text:
    """Opens the corpus, makes or finds the tokenizer, and builds or maps the token caches."""
    corpus = build_corpus(recipe.data, cache=cache)
    tokenizer = build_tokenizer(recipe.tokenizer, corpus, cache=cache)
    stores = build_stores(corpus, tokenizer, cache=cache, progress=progress)
    return Text(corpus=corpus, tokenizer=tokenizer, stores=stores)


def build_text_for(recipe: schema.Recipe, tokenizer: Tokenizer, *, cache: Path) -> Text:
    """As `build_text`, with a tokenizer that is there already."""
    corpus = build_corpus(recipe.data, cache=cache)
    return Text(corpus=corpus, tokenizer=tokenizer, stores=build_stores(corpus, tokenizer, cache=cache))


def build_corpus(data: schema.DataSpec, *, cache: Path) -> Corpus:
    """The documents that a recipe names."""
    return open_corpus(
        data.source,
        validation=data.validation,
        test=data.test,
        text_key=data.text_key,
        prompt_key=data.prompt_key,
        response_key=data.response_key,
        separator=data.separator,
        config=data.config,
        streaming=data.streaming,
        max_documents=data.max_documents,
        cache=cache,
    )


def build_rows(data: schema.DataSpec, store: TokenStore) -> Rows:
    """A split in rows: packed text, or one prompt-response pair a row."""
    if store.prompt_lengths is None:
        return PackedRows(store, length=data.length)
    return {"none": PairRows, "end": FilledPairRows}[data.pad](store, length=data.length)


def build_tokenizer(spec: schema.TokenizerSpec, corpus: Corpus, *, cache: Path) -> Tokenizer:
    """The tokenizer of a recipe; a trained one is kept in the cache under the corpus's fingerprint."""
    match spec:
        case schema.ByteTokenizerSpec():
            return ByteTokenizer()
        case schema.CharacterTokenizerSpec():
            return character_tokenizer(text for _, text in corpus.walk())
        case schema.BPETokenizerSpec():
            return corpus_bpe(corpus, vocab_size=spec.vocab_size, cache=cache)
        case schema.HuggingFaceTokenizerSpec():
            return huggingface_tokenizer(spec.name)
