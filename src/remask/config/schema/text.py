"""What a recipe may say of text and tokenizer."""

import difflib
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from remask.config.schema.section import Section, Whole

DEFAULT_LANES = 8
"""Lanes of a stream where the recipe does not say."""

TASKS = (
    *("sudoku4", "countdown"),
    *("multiplication", "multiplication3x3", "multiplication4x4", "multiplication5x5"),
    *("arithmetic", "arithmetic3", "arithmetic4"),
)
"""Embedded sources that make their own pairs."""

# --- data -------------------------------------------------------------------------------------------------


class SourceSpec(Section):
    """A further source of training text; what its keys mean is said at the same keys of `data`."""

    source: str = Field(min_length=1, description="a text file, a folder, hf:NAME, or an embedded text or task")
    weight: float = Field(default=1.0, gt=0, le=1e6, description="how often its rows are taken, against the others'")
    text_key: str = Field(default="text", min_length=1, description="column or key that holds the text")
    prompt_key: str | None = Field(default=None, min_length=1, description="column or key of the prompt, for pairs")
    response_key: str | None = Field(default=None, min_length=1, description="column or key of the response")
    separator: str | None = Field(default=None, min_length=1, description="text between documents, or after prompts")
    config: str | None = Field(default=None, min_length=1, description="configuration of a Hugging Face dataset")
    max_documents: Whole | None = Field(default=None, ge=1, description="documents to read at most; null: all")


def as_sources(value: Any) -> Any:
    """A list of mappings as sources; what is wrong with one is said of that one."""
    if not isinstance(value, list | tuple):
        return value
    return tuple(item if isinstance(item, SourceSpec) else _source(item, place) for place, item in enumerate(value, 1))


def _source(item: Any, place: int) -> SourceSpec:
    if not isinstance(item, dict):
        raise ValueError(f"and entry {place} is no mapping")
    known = SourceSpec.model_fields
    for key in item:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise ValueError(f"and entry {place} has an unknown key {key}; {hint}It may have {', '.join(known)}")
    try:
        return SourceSpec.model_validate(item)
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        key = wrong["loc"][0]
        problem = "is missing" if wrong["type"] == "missing" else f"is wrong ({wrong['msg'].lower()})"
        raise ValueError(f"and in entry {place} the key {key} {problem}") from None


class DataSpec(Section):
    """The text, and how long a row of it is."""

    source: str = Field(
        min_length=1,
        description=f"python-docs, python-code, {', '.join(TASKS)}, a text file, a folder, or hf:NAME",
    )
    validation: str | None = Field(
        default=None,
        min_length=1,
        description="file or folder held out for validation; null: a share of source",
    )
    test: str | None = Field(
        default=None, min_length=1, description="file or folder held out for testing; null: a share of source"
    )
    text_key: str = Field(default="text", min_length=1, description="column or key that holds the text")
    prompt_key: str | None = Field(
        default=None, min_length=1, description="column or key of the prompt, for prompt-response pairs; null: text"
    )
    response_key: str | None = Field(
        default=None, min_length=1, description="column or key of the response, whose tokens alone are learned"
    )
    pad: Literal["none", "end"] = Field(
        default="none",
        description="pairs: fill rows with padding, or with end-of-text tokens that are learned (so lengths are too)",
    )
    separator: str | None = Field(
        default=None,
        min_length=1,
        description="text between two documents of one .txt file, or after each prompt of a pair; null: none",
    )
    config: str | None = Field(default=None, min_length=1, description="configuration of a Hugging Face dataset")
    max_documents: Whole | None = Field(default=None, ge=1, description="documents to read at most; null: all")
    length: Whole = Field(default=128, ge=2, description="tokens a row")
    prefix: Whole | None = Field(
        default=None,
        ge=0,
        description="rows lie in one document each; so many tokens of each are given, the rest learned; null: packed",
    )
    stride: Whole | None = Field(
        default=None,
        ge=1,
        description="prefix: tokens from one row's start to the next one's in a document; null: data.length",
    )
    weight: float = Field(
        default=1.0, gt=0, le=1e6, description="how often rows of source are taken, against those of the mixture"
    )
    mixture: Annotated[tuple[SourceSpec, ...], BeforeValidator(as_sources)] = Field(
        default=(),
        description="further sources of training text, e.g. [{source: FILE, weight: 0.5}]",
        json_schema_extra={"valid": "a list of {source: …, weight: …, text_key: …, separator: …}"},
    )
    workers: Whole = Field(
        default=0, ge=0, le=64, description="processes that prepare batches ahead; 0: the training process itself"
    )
    streaming: bool = Field(
        default=False, description="read training text while training goes on, without tokenizing all of it first"
    )
    lanes: Whole | None = Field(
        default=None, ge=1, le=4096, description="streaming: ways the text is read in, a divisor of batch_size; null: 8"
    )
    shuffle_documents: Whole | None = Field(
        default=None, ge=1, description="streaming: documents shuffled together, 1: none are; null: 1024"
    )
    sample_bytes: Whole | None = Field(
        default=None,
        ge=1000,
        description="streaming: text that tokenizers and trivial predictors are fitted on; null: 16000000",
    )

    @property
    def paired(self) -> bool:
        """Whether it is prompts with their responses: of two columns, or of a task that makes its own."""
        return self.prompt_key is not None or self.source in TASKS


# --- tokenizer --------------------------------------------------------------------------------------------


class ByteTokenizerSpec(Section):
    """One token a UTF-8 byte."""

    kind: Literal["byte"] = Field(default="byte", description="one token a UTF-8 byte (258 ids)")


class CharacterTokenizerSpec(Section):
    """One token a character of the corpus."""

    kind: Literal["character"] = Field(default="character", description="one token a character of the corpus")


class BPETokenizerSpec(Section):
    """Byte-level byte-pair encoding, trained on the training split."""

    kind: Literal["bpe"] = Field(default="bpe", description="byte-level BPE trained on the training split")
    vocab_size: Whole = Field(default=1024, ge=258, description="ids, with end of text and mask among them")
    lowercase: bool = Field(default=False, description="read texts in lower case; they are written so, too")


class HuggingFaceTokenizerSpec(Section):
    """A ready tokenizer from the Hub or from a folder."""

    kind: Literal["huggingface"] = Field(default="huggingface", description="a ready Hugging Face tokenizer")
    name: str = Field(min_length=1, description="its name on the Hub, or a local folder")


TokenizerSpec = Annotated[
    ByteTokenizerSpec | CharacterTokenizerSpec | BPETokenizerSpec | HuggingFaceTokenizerSpec,
    Field(discriminator="kind"),
]
