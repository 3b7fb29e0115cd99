"""A remask tokenizer as a fast tokenizer of transformers, with the same ids."""

import tempfile
from pathlib import Path

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend
from transformers import PreTrainedTokenizerFast

from remask.tokenizers import BPETokenizer, ByteTokenizer, Tokenizer
from remask.tokenizers.base import BACKEND_FILE
from remask.tokenizers.bpe import byte_characters
from remask.tokenizers.huggingface import ADDED_EOS, ADDED_MASK
from remask.tokenizers.plain import CharacterTokenizer


def transformers_tokenizer(tokenizer: Tokenizer, *, length: int) -> PreTrainedTokenizerFast:
    """A tokenizer that transformers saves, loads and streams with, on its own.

    It gives the ids that remask gives, but for special tokens written out in a text: here `<|mask|>` is the mask, so
    that a prompt can hold gaps; and but for the few letters (İ, ẞ) that `lowered` leaves as they are. Padding is on the
    left, as `generate` wants it.

    Args:
        tokenizer: remask's.
        length: tokens of the longest row that the model has seen.
    """
    backend = _backend(tokenizer)
    names = [backend.id_to_token(tokenizer.eos_id) or ADDED_EOS, backend.id_to_token(tokenizer.mask_id) or ADDED_MASK]
    backend.add_special_tokens(names)
    found = [backend.token_to_id(name) for name in names]
    assert found == [tokenizer.eos_id, tokenizer.mask_id], f"special tokens got the ids {found}"
    # remask adds nothing of its own to a text, and neither does this
    backend.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B:1")
    eos, mask = names
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=eos,
        pad_token=eos,
        mask_token=mask,
        padding_side="left",
        model_max_length=length,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def _backend(tokenizer: Tokenizer) -> Backend:
    if isinstance(tokenizer, ByteTokenizer):
        return _byte_backend()
    if isinstance(tokenizer, CharacterTokenizer):
        return _character_backend(tokenizer.alphabet)
    with tempfile.TemporaryDirectory() as folder:  # the other kinds are saved with a backend
        tokenizer.save(folder)
        backend = Backend.from_file(str(Path(folder) / BACKEND_FILE))
    if isinstance(tokenizer, BPETokenizer) and tokenizer.lowercase:
        backend.normalizer = normalizers.Lowercase()
    return backend


def _byte_backend() -> Backend:
    """Byte-pair encoding without merges: the byte is the id."""
    backend = Backend(models.BPE(vocab=byte_characters(), merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def _character_backend(alphabet: str) -> Backend:
    """One word a character; a character outside the alphabet is an error, as there is no token for unknown ones."""
    backend = Backend(models.WordLevel({character: i for i, character in enumerate(alphabet)}))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    return backend
