"""Any fast Hugging Face tokenizer, by name or folder; a mask and an end of text are added when missing."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from tokenizers import Tokenizer as Backend

from remask.errors import UserError
from remask.tokenizers.base import (
    BACKEND_FILE,
    Encoding,
    Ids,
    Token,
    Tokenizer,
    fingerprint_of,
    id_list,
    utf8,
    utf8_lengths,
    visible,
)

ADDED_MASK = "<|mask|>"
ADDED_EOS = "<|endoftext|>"

# Mixed case, accents, blanks in a row, other scripts and a line end: what lossy tokenizers change.
_PROBE = "Don't  stop:\n\tÄpfel, 東京 🙂 x_1 = [3.5]  \nEnd "


class HuggingFaceTokenizer(Tokenizer):
    """A tokenizer of the `tokenizers` library, as Hugging Face models use it; it needs no transformers.

    Special tokens written out in a text ("[MASK]", "<|endoftext|>") are encoded as the characters they are.
    A document is encoded whole, so one of many megabytes needs memory.

    Args:
        backend: the tokenizer; its truncation and padding are switched off.
        eos_id: the id that ends a document.
        mask_id: the id of the mask.
    """

    kind: ClassVar[str] = "huggingface"

    def __init__(self, backend: Backend, *, eos_id: int, mask_id: int) -> None:
        self._backend = backend
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
        self._json = backend.to_str()
        self.eos_id, self.mask_id = eos_id, mask_id
        # Some vocabularies have holes, so the count of tokens is not the largest id.
        self.vocab_size = max(backend.get_vocab(with_added_tokens=True).values()) + 1
        self.fingerprint = fingerprint_of(self.kind, self._json, eos_id, mask_id)
        self._mask_token = backend.id_to_token(mask_id) or ""
        self.lossless = self.decode(self.encode(_PROBE).ids) == _PROBE

    def encode(self, text: str) -> Encoding:
        """The tokens of `text`, without the special tokens that a model's template adds.

        Raises:
            UserError: the text holds a lone surrogate, or encodes to the mask.
        """
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
        """The tokens of each text.

        Raises:
            UserError: a text holds a lone surrogate, or encodes to the mask.
        """
        for text in texts:
            utf8(text)
        encoded = self._backend.encode_batch(list(texts), add_special_tokens=False)
        return [self._encoding(text, e.ids, e.offsets) for text, e in zip(texts, encoded, strict=True)]

    def _encoding(self, text: str, ids: list[int], offsets: list[tuple[int, int]]) -> Encoding:
        array = np.array(ids, dtype=np.int32)
        if (array == self.mask_id).any():
            raise UserError(
                f"this tokenizer encodes the text to its own mask token {self._mask_token!r}; a mask must "
                "never stand for text, so use a tokenizer whose mask is a special token"
            )
        return Encoding(ids=array, byte_lengths=_byte_lengths(text, offsets))

    def decode(self, ids: Ids, *, mask_text: str = "_") -> str:
        """The text of `ids`; see `Tokenizer.decode`."""
        kept = [token for token in id_list(ids) if token != self.eos_id]
        text = self._backend.decode(kept, skip_special_tokens=False)
        return text.replace(self._mask_token, mask_text) if self.mask_id in kept else text

    def decode_bytes(self, ids: Ids) -> bytes:
        """The UTF-8 bytes of `ids`, without masks and ends of text."""
        kept = [token for token in id_list(ids) if token not in (self.eos_id, self.mask_id)]
        return self._backend.decode(kept, skip_special_tokens=False).encode()

    def token_text(self, token: Token) -> str:
        """One token in visible characters."""
        special = {self.eos_id: "<eos>", self.mask_id: "<mask>"}
        number = int(token)
        if number in special:
            return special[number]
        text = self._backend.decode([number], skip_special_tokens=False)
        name = self._backend.id_to_token(number)
        return visible(text.encode()) if text and "\ufffd" not in text else name or f"<{number}>"

    def _config(self) -> dict[str, Any]:
        return {"eos_id": self.eos_id, "mask_id": self.mask_id}

    def _backend_json(self) -> str:
        return self._json


def _byte_lengths(text: str, offsets: list[tuple[int, int]]) -> np.ndarray:
    """Bytes from the end of what came before to the end of each token, int32 [N].

    So blanks that a tokenizer drops count with the token after them, those at the end with the last token,
    and a character split over tokens with the first of them: the lengths sum to the bytes of the text.
    """
    if not offsets:
        return np.zeros(0, dtype=np.int32)
    ends = np.maximum.accumulate(np.array([end for _, end in offsets], dtype=np.int64))
    ends[-1] = len(text)
    byte_ends = np.concatenate([[0], np.cumsum(utf8_lengths(text), dtype=np.int64)])[ends]
    return np.diff(byte_ends, prepend=0).astype(np.int32)


def huggingface_tokenizer(name: str | Path) -> HuggingFaceTokenizer:
    """A Hugging Face tokenizer by hub name or local folder.

    Args:
        name: a name on the hub, e.g. `gpt2`, or a folder that `save_pretrained` wrote.

    Raises:
        UserError: the tokenizer cannot be found or reached, or has no fast version.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast  # late: importing it takes seconds

    local = Path(name).expanduser()
    if looks_like_path(name) and not local.exists():
        raise UserError(f"there is no tokenizer folder {str(name)!r}; give a folder or a name on the hub")
    try:
        loaded = AutoTokenizer.from_pretrained(str(local) if local.exists() else str(name), local_files_only=True)
    except Exception as error:  # the parsers and the hub client each have exceptions of their own
        if local.exists():
            raise _not_a_tokenizer(name, local, error) from None
        loaded = _from_hub(str(name))
    if not isinstance(loaded, PreTrainedTokenizerFast):
        raise UserError(
            f"the tokenizer {str(name)!r} has no fast version, so the bytes of its tokens are unknown; "
            "use one that comes with a tokenizer.json"
        )
    backend = Backend.from_str(loaded.backend_tokenizer.to_str())
    return HuggingFaceTokenizer(
        backend,
        eos_id=_special(backend, loaded.eos_token, otherwise=ADDED_EOS),
        mask_id=_special(backend, loaded.mask_token, otherwise=ADDED_MASK),
    )


def _from_hub(name: str) -> object:
    """The tokenizer from the network; one short question first, since the download retries for a minute."""
    from huggingface_hub import HfApi
    from transformers import AutoTokenizer

    try:
        HfApi().model_info(name, timeout=10.0)
        return AutoTokenizer.from_pretrained(name)
    except Exception as error:  # as above, and the network's own
        raise _cannot_load(name, error) from None


def _cannot_load(name: str | Path, error: Exception) -> UserError:
    return UserError(
        f"cannot load the Hugging Face tokenizer {str(name)!r}: {_first_line(error)}; check the name and the "
        "network, or give a folder"
    )


def _not_a_tokenizer(name: str | Path, folder: Path, error: Exception) -> UserError:
    if (folder / BACKEND_FILE).is_file():
        return UserError(
            f"the tokenizer folder {str(name)!r} cannot be read ({_first_line(error)}); save the tokenizer again"
        )
    return UserError(
        f"the folder {str(name)!r} holds no {BACKEND_FILE}, so no tokenizer that remask can use; give a folder that "
        "save_pretrained of a fast tokenizer wrote, or a name on the hub"
    )


def _special(backend: Backend, token: object, *, otherwise: str) -> int:
    """The id of a special token; one that the tokenizer lacks is added under the other name."""
    name = otherwise if token is None else str(token)
    backend.add_special_tokens([name])  # one that is there keeps its id
    found = backend.token_to_id(name)
    assert found is not None
    return found


def looks_like_path(name: str | Path) -> bool:
    """Whether `name` can only be meant as a path (a hub name is `name` or `owner/name`)."""
    text = str(name)
    return isinstance(name, Path) or text.startswith((".", "~", os.sep)) or text.count("/") > 1


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
