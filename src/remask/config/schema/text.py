"""What a recipe may say of text and tokenizer."""

from typing import Annotated, Literal

from pydantic import Field

from remask.config.schema.section import Section, Whole

# --- data -------------------------------------------------------------------------------------------------


class DataSpec(Section):
    """The text, and how long a row of it is."""

    source: str = Field(
        min_length=1,
        description="python-docs, python-code, sudoku4, countdown, multiplication, a text file, a folder, or hf:NAME",
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
    streaming: bool = Field(default=False, description="read a Hugging Face dataset without downloading it whole")
    max_documents: Whole | None = Field(default=None, ge=1, description="documents to read at most; null: all")
    length: Whole = Field(default=128, ge=2, description="tokens a row")


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


class HuggingFaceTokenizerSpec(Section):
    """A ready tokenizer from the Hub or from a folder."""

    kind: Literal["huggingface"] = Field(default="huggingface", description="a ready Hugging Face tokenizer")
    name: str = Field(min_length=1, description="its name on the Hub, or a local folder")


TokenizerSpec = Annotated[
    ByteTokenizerSpec | CharacterTokenizerSpec | BPETokenizerSpec | HuggingFaceTokenizerSpec,
    Field(discriminator="kind"),
]
