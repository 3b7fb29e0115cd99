"""Hugging Face tokenizers, offline: tiny ones made here, saved to a folder and read by AutoTokenizer."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from remask.errors import UserError
from remask.tokenizers import HuggingFaceTokenizer, huggingface_tokenizer, load_tokenizer

TEXT = "The quick brown fox, café and 東京 tea; the lazy dog. [MASK] <|end|>\n" * 10


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def byte_level_folder(folder):
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|end|>", "<|mask|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([TEXT], trainer)
    return saved(backend, folder, eos_token="<|end|>", mask_token="<|mask|>")


def word_piece_folder(folder):
    words = ["[UNK]", "the", "quick", "brown", "fox", "tea", "##s", "##t", ",", ".", "cafe", "dog", "lazy"]
    backend = Backend(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.TemplateProcessing(single="the $A", special_tokens=[("the", 1)])
    backend.enable_truncation(max_length=4)
    return saved(backend, folder, unk_token="[UNK]")


def saved(backend, folder, **special):
    folder.mkdir()
    backend.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory):
    return huggingface_tokenizer(byte_level_folder(tmp_path_factory.mktemp("hf") / "bpe"))


@pytest.fixture(scope="module")
def word_piece(tmp_path_factory):
    return huggingface_tokenizer(word_piece_folder(tmp_path_factory.mktemp("hf") / "wordpiece"))


def test_special_tokens_that_are_there_are_used(byte_level):
    assert (byte_level.eos_id, byte_level.mask_id, byte_level.vocab_size) == (0, 1, 300)


def test_a_missing_mask_and_end_of_text_are_added(word_piece):
    assert {word_piece.eos_id, word_piece.mask_id} == {13, 14}
    assert word_piece.vocab_size == 15


def test_byte_level_is_known_to_be_lossless_and_word_piece_not(byte_level, word_piece):
    assert byte_level.lossless
    assert not word_piece.lossless


@given(text=st.text())
@settings(deadline=None)
def test_byte_level_gives_any_text_back(byte_level, text):
    encoding = byte_level.encode(text)
    assert byte_level.decode(encoding.ids) == text
    assert encoding.byte_lengths.sum() == len(text.encode())


def test_special_tokens_written_in_a_text_are_text(byte_level):
    text = "a <|end|> b <|mask|> c"
    encoding = byte_level.encode(text)
    assert not np.isin(encoding.ids, [byte_level.eos_id, byte_level.mask_id]).any()
    assert byte_level.decode(encoding.ids) == text


@given(text=st.text(alphabet=st.one_of(st.sampled_from("the tea, é\n"), st.characters(codec="utf-8"))))
@settings(deadline=None)
def test_a_lossy_tokenizer_counts_every_byte_of_the_text(word_piece, text):
    encoding = word_piece.encode(text)
    assert (encoding.byte_lengths >= 0).all()
    if len(encoding):
        assert encoding.byte_lengths.sum() == len(text.encode())


def test_dropped_blanks_count_with_the_next_token_and_trailing_ones_with_the_last(word_piece):
    encoding = word_piece.encode("  The   café.\n\n")
    assert [word_piece.token_text(token) for token in encoding.ids] == ["the", "cafe", "."]
    assert encoding.byte_lengths.tolist() == [5, 8, 3]


def test_neither_template_nor_truncation_of_a_model_touches_the_text(word_piece):
    assert word_piece.decode(word_piece.encode("quick brown fox, lazy dog, teas").ids) == (
        "quick brown fox, lazy dog, teas"
    )


def test_decoding_leaves_ends_of_text_out_and_shows_masks(byte_level, word_piece):
    ids = [*byte_level.encode("tea").ids, byte_level.mask_id, byte_level.eos_id]
    assert byte_level.decode(ids, mask_text="[?]") == "tea[?]"
    assert byte_level.decode_bytes(ids) == b"tea"
    ids = [*word_piece.encode("quick tea").ids, word_piece.mask_id, word_piece.eos_id]
    assert word_piece.decode(ids) == "quick tea _"


def test_token_texts_are_visible(byte_level):
    for token in range(byte_level.vocab_size):
        assert byte_level.token_text(token).isprintable()
    assert byte_level.token_text(byte_level.mask_id) == "<mask>"


def test_a_saved_one_loads_as_itself_without_transformers(word_piece, byte_level, tmp_path):
    for number, tokenizer in enumerate((word_piece, byte_level)):
        tokenizer.save(tmp_path / str(number))
        loaded = load_tokenizer(tmp_path / str(number))
        assert isinstance(loaded, HuggingFaceTokenizer)
        assert loaded.fingerprint == tokenizer.fingerprint
        assert loaded.lossless == tokenizer.lossless
        np.testing.assert_array_equal(loaded.encode(TEXT).ids, tokenizer.encode(TEXT).ids)


def test_a_batch_encodes_as_its_texts_do(byte_level):
    texts = [TEXT, "", "tea"]
    for text, encoding in zip(texts, byte_level.encode_batch(texts), strict=True):
        np.testing.assert_array_equal(encoding.ids, byte_level.encode(text).ids)


def test_a_mask_that_stands_for_text_is_refused():
    backend = Backend(models.WordLevel({"tea": 0, "mask": 1, "[UNK]": 2}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = HuggingFaceTokenizer(backend, eos_id=0, mask_id=1)
    with pytest.raises(UserError, match="its own mask token 'mask'"):
        tokenizer.encode("tea mask")


def test_a_name_that_cannot_be_reached_is_one_clear_line():
    with pytest.raises(UserError, match="cannot load the Hugging Face tokenizer 'nobody/no-such-tokenizer'") as caught:
        huggingface_tokenizer("nobody/no-such-tokenizer")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("folder", ["./nowhere", "/nowhere/at/all"])
def test_a_missing_folder_is_named_without_asking_the_hub(folder):
    with pytest.raises(UserError, match="no tokenizer folder"):
        huggingface_tokenizer(folder)


def test_a_folder_without_a_tokenizer_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match=r"holds no tokenizer\.json"):
        huggingface_tokenizer(tmp_path)
