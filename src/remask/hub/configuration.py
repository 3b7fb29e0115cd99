"""The `config.json` of a model that transformers can find."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig


class RemaskConfig(PreTrainedConfig):
    """Everything that remask records of a saved model, as attributes; the weights lie beside it.

    Args:
        recipe: the experiment that the model came from, as plain values.
        vocab_size: ids of the tokenizer, end of text and mask included.
        mask_token_id: the id that stands for a token that is not drawn yet.
        eos_token_id: the id that ends a document.
        others: what else `config.json` holds.
    """

    model_type = "remask"

    def __init__(
        self,
        recipe: Mapping[str, Any] | None = None,
        vocab_size: int | None = None,
        mask_token_id: int | None = None,
        eos_token_id: int | None = None,
        **others: Any,
    ) -> None:
        super().__init__(**others)
        self.recipe = dict(recipe or {})
        self.vocab_size = vocab_size
        self.mask_token_id = mask_token_id
        self.eos_token_id = eos_token_id
