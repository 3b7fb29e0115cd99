"""What holds for every tokenizer: nothing is lost, bytes are counted, files give the same tokenizer back."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remask.errors import UserError
from remask.tokenizers import (
    BPETokenizer,
    ByteTokenizer,
    CharacterTokenizer,
    Tokenizer,
    character_tokenizer,
    load_tokenizer,
    train_bpe,
)
from remask.tokenizers.bpe import chunks

TEXT = "The café sells naïve coffee; the tea, 東京 tea, is 3.50 🙂.\n\n\tdef tea(x):\n        return x\r\n" * 20
BPE = train_bpe([TEXT], vocab_size=300)
LOWER = train_bpe([TEXT], vocab_size=300, lowercase=True)
LOSSLESS = [ByteTokenizer(), character_tokenizer([TEXT]), BPE]
kinds = pytest.mark.parametrize("tokenizer", LOSSLESS, ids=lambda tokenizer: tokenizer.kind)


def assert_nothing_is_lost(tokenizer: Tokenizer, text: str) -> None:
    encoding = tokenizer.encode(text)
    assert tokenizer.decode(encoding.ids) == text
    assert tokenizer.decode_bytes(encoding.ids) == text.encode()
    assert encoding.byte_lengths.sum() == len(text.encode())
    assert len(encoding.byte_lengths) == len(encoding)
    assert not np.isin(encoding.ids, [tokenizer.eos_id, tokenizer.mask_id]).any()


@given(text=st.text())
@settings(deadline=None)
def test_bytes_give_any_text_back(text):
    assert_nothing_is_lost(ByteTokenizer(), text)


@given(text=st.text())
@settings(deadline=None)
def test_bpe_gives_any_text_back_though_it_was_trained_on_another(text):
    assert_nothing_is_lost(BPE, text)


@given(text=st.text(alphabet=sorted(set(TEXT))))
@settings(deadline=None)
def test_characters_give_any_text_of_their_alphabet_back(text):
    assert_nothing_is_lost(LOSSLESS[1], text)


BLANKS = st.sampled_from("ab 1'.,\n\t\r\x0b\x1c\x85\xa0\u2028 \n")


@given(text=st.text(alphabet=st.one_of(BLANKS, st.characters(codec="utf-8"))))
@settings(deadline=None, max_examples=80)
def test_cutting_a_long_text_changes_no_token(text):
    whole = BPE._backend.encode(text, add_special_tokens=False).ids
    parts = [BPE._backend.encode(part, add_special_tokens=False).ids for part in chunks(text, size=3)]
    assert [token for part in parts for token in part] == whole


def test_a_long_text_is_cut_and_joins_again():
    parts = list(chunks(TEXT * 100))
    assert len(parts) > 1
    assert "".join(parts) == TEXT * 100


@kinds
def test_bytes_per_token_are_those_of_the_token(tokenizer):
    encoding = tokenizer.encode(TEXT)
    for token, length in zip(encoding.ids[:200], encoding.byte_lengths[:200], strict=True):
        assert len(tokenizer.decode_bytes([token])) == length


@kinds
def test_special_ids_are_the_last_two_and_lie_within_the_vocabulary(tokenizer):
    assert {tokenizer.eos_id, tokenizer.mask_id} == {tokenizer.vocab_size - 2, tokenizer.vocab_size - 1}


@kinds
def test_decoding_leaves_ends_of_text_out_and_shows_masks(tokenizer):
    ids = [*tokenizer.encode("tea").ids, tokenizer.eos_id, tokenizer.mask_id, *tokenizer.encode("is").ids]
    assert tokenizer.decode(ids) == "tea_is"
    assert tokenizer.decode(ids, mask_text="[?]") == "tea[?]is"
    assert tokenizer.decode_bytes(ids) == b"teais"


@kinds
def test_a_batch_encodes_as_its_texts_do(tokenizer):
    texts = ["tea", "", TEXT, "the café"]
    for text, encoding in zip(texts, tokenizer.encode_batch(texts), strict=True):
        np.testing.assert_array_equal(encoding.ids, tokenizer.encode(text).ids)
        np.testing.assert_array_equal(encoding.byte_lengths, tokenizer.encode(text).byte_lengths)


@kinds
def test_every_token_has_a_visible_text(tokenizer):
    for token in range(tokenizer.vocab_size):
        text = tokenizer.token_text(token)
        assert text
        assert text.isprintable()


@kinds
def test_a_saved_tokenizer_loads_as_itself(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "deep" / "tokenizer")
    loaded = load_tokenizer(tmp_path / "deep" / "tokenizer")
    assert loaded.fingerprint == tokenizer.fingerprint
    assert (loaded.vocab_size, loaded.eos_id, loaded.mask_id) == (
        tokenizer.vocab_size,
        tokenizer.eos_id,
        tokenizer.mask_id,
    )
    np.testing.assert_array_equal(loaded.encode(TEXT).ids, tokenizer.encode(TEXT).ids)
    assert all(path.suffix == ".json" for path in (tmp_path / "deep" / "tokenizer").iterdir())


@kinds
def test_ids_may_be_a_list_an_array_or_a_tensor(tokenizer):
    import torch

    ids = tokenizer.encode("the tea").ids
    for given_ids in (ids.tolist(), list(ids), ids, torch.from_numpy(ids.astype(np.int64))):
        assert tokenizer.decode(given_ids) == "the tea"
        assert tokenizer.decode_bytes(given_ids) == b"the tea"


def test_a_model_may_sample_bytes_that_are_no_text():
    assert ByteTokenizer().decode([0xE6, 0x41, 0xFF]) == "\ufffdA\ufffd"


@kinds
def test_an_id_outside_the_vocabulary_is_refused(tokenizer):
    for wrong in (-1, tokenizer.vocab_size):
        with pytest.raises(IndexError):
            tokenizer.decode([wrong])


@kinds
def test_a_lone_surrogate_is_named(tokenizer):
    with pytest.raises(UserError, match=r"U\+D800 at character 2"):
        tokenizer.encode("te\ud800a")


def test_fingerprints_tell_tokenizers_apart():
    prints = {tokenizer.fingerprint for tokenizer in [*LOSSLESS, CharacterTokenizer("ab"), CharacterTokenizer("abc")]}
    assert len(prints) == 5


def test_the_order_of_an_alphabet_does_not_matter():
    assert CharacterTokenizer("cab").fingerprint == CharacterTokenizer("abcc").fingerprint


def test_an_unknown_character_is_named():
    with pytest.raises(UserError, match=r"'é' \(U\+00E9\) at position 3"):
        CharacterTokenizer("acf").encode("café")


def test_a_character_beyond_the_alphabet_is_unknown_too():
    with pytest.raises(UserError, match=r"'z'"):
        CharacterTokenizer("abc").encode("z")


def test_an_empty_alphabet_is_refused():
    with pytest.raises(UserError, match="at least one character"):
        character_tokenizer([])


def test_the_vocabulary_of_bpe_counts_its_special_tokens():
    assert BPE.vocab_size == 300


def test_a_small_text_gives_a_small_bpe_vocabulary():
    assert 258 <= train_bpe(["aaab aaab"], vocab_size=5000).vocab_size < 300


def test_bpe_needs_room_for_every_byte():
    with pytest.raises(UserError, match="at least 258"):
        train_bpe([TEXT], vocab_size=257)


def test_bpe_needs_text():
    with pytest.raises(UserError, match="no text"):
        train_bpe([], vocab_size=300)


def test_an_error_in_the_documents_comes_through_bpe_training():
    def documents():
        yield "tea"
        raise UserError("line 2 is broken")

    with pytest.raises(UserError, match="line 2 is broken"):
        train_bpe(documents(), vocab_size=300)


def test_bpe_training_gives_the_same_tokenizer_in_another_process():
    code = (
        "import sys; from remask.tokenizers import train_bpe;"
        "print(train_bpe([sys.stdin.buffer.read().decode()], vocab_size=300).fingerprint)"
    )
    for threads in ("1", "4"):
        other = subprocess.run(
            [sys.executable, "-c", code],
            input=TEXT.encode(),
            capture_output=True,
            check=True,
            env={"RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads},
        )
        assert other.stdout.decode().strip() == BPE.fingerprint


def test_importing_tokenizers_needs_neither_torch_nor_transformers():
    code = "import sys, remask.tokenizers; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"[]\n"


def test_a_missing_tokenizer_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no tokenizer_config\.json in"):
        load_tokenizer(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["tokenizer_config.json", "tokenizer.json"])
def test_a_truncated_tokenizer_file_is_one_clear_line(name, tmp_path):
    BPE.save(tmp_path)
    (tmp_path / name).write_text((tmp_path / name).read_text()[:-20])
    with pytest.raises(UserError, match="save the tokenizer again") as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_changed_tokenizer_file_is_noticed(tmp_path):
    character_tokenizer(["abc"]).save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"alphabet": "abd"}))
    with pytest.raises(UserError, match="files were changed"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "bite"}, "did you mean 'byte'"),
        ({"format": 99}, "format 99"),
        ({"alphabet": 3}, "damaged"),
    ],
)
def test_a_tokenizer_of_another_kind_or_format_is_refused(change, message, tmp_path):
    character_tokenizer(["abc"]).save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | change))
    with pytest.raises(UserError, match=message):
        load_tokenizer(tmp_path)


def test_a_vocabulary_without_all_bytes_is_refused():
    from tokenizers import Tokenizer as Backend
    from tokenizers import models

    with pytest.raises(UserError, match="lacks some of the 256 bytes"):
        BPETokenizer(Backend(models.BPE(vocab={"a": 0, "b": 1}, merges=[])))


def test_a_tokenizer_in_lower_case_keeps_the_bytes_of_the_text():
    """Letters whose lower case has another size stay as they are, so that counts of bytes are the true text's."""
    text = "Der Straße ÄÖ, İstanbul, \u1e9e and \u212a: ΟΔΟΣ DON'T"
    found = LOWER.encode(text)
    assert LOWER.decode(found.ids) == "der straße äö, İstanbul, \u1e9e and \u212a: οδοσ don't"
    assert int(found.byte_lengths.sum()) == len(text.encode())
    assert not LOWER.lossless


def test_lower_case_is_kept_when_a_tokenizer_is_saved(tmp_path):
    """And it is another tokenizer than one of the same merges that tells case apart."""
    LOWER.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.decode(loaded.encode("THE Tea").ids) == "the tea"
    assert loaded.fingerprint == LOWER.fingerprint != BPETokenizer(LOWER._backend).fingerprint
