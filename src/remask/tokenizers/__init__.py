"""Text to ids and back: bytes, characters, BPE trained on the corpus, any Hugging Face tokenizer.

Every tokenizer knows its end of text, its mask and the bytes behind each token, so that every likelihood can
be given in bits per byte.
"""

from remask.tokenizers.base import Encoding, Tokenizer
from remask.tokenizers.bpe import BPETokenizer, train_bpe
from remask.tokenizers.files import load_tokenizer
from remask.tokenizers.huggingface import HuggingFaceTokenizer, huggingface_tokenizer
from remask.tokenizers.plain import ByteTokenizer, CharacterTokenizer, character_tokenizer

__all__ = [
    "BPETokenizer",
    "ByteTokenizer",
    "CharacterTokenizer",
    "Encoding",
    "HuggingFaceTokenizer",
    "Tokenizer",
    "character_tokenizer",
    "huggingface_tokenizer",
    "load_tokenizer",
    "train_bpe",
]
