"""Models of transformers as readers: their nats are the library's own loss, whatever shares a batch."""

import numpy as np
import pytest
import torch
import transformers

from pretrained_models import EOS, tiny_model, write_tokenizer
from remask.errors import UserError
from remask.evaluation import causal_reader
from remask.evaluation.causal_reader import CausalReader
from remask.evaluation.judged import judged_by_reader
from remask.evaluation.quality import token_entropy
from remask.tokenizers import ByteTokenizer

TEXTS = ["The quick brown fox", "jumps", "over <|endoftext|> the lazy dog, again and again", "é"]
BYTES = ByteTokenizer()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)


def reader_of(kind, tokenizer):
    return CausalReader.of(tiny_model(kind), tokenizer, name="it")


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_nats_are_the_library_s_own_loss_on_the_same_text(kind, tokenizer):
    reader = reader_of(kind, tokenizer)
    texts = [[*reader.tokens(text), reader.end_id] for text in TEXTS]
    expected = []
    for text in texts:
        ids = torch.tensor([[EOS, *text]])
        with torch.no_grad():
            expected.append(float(reader.model(input_ids=ids, labels=ids).loss) * len(text))
    np.testing.assert_allclose(reader.nats(texts), expected, rtol=1e-5)


def test_a_text_longer_than_the_window_is_read_in_pieces_that_each_begin_anew(tokenizer, monkeypatch):
    reader = reader_of("gpt2", tokenizer)
    assert reader.window == 64
    text = list(range(40)) * 4
    pieces = [text[start : start + 63] for start in (0, 63, 126)]
    expected = reader.nats(pieces)
    np.testing.assert_allclose(reader.nats([text, [7]]), [expected.sum(), reader.nats([[7]])[0]], rtol=1e-6)
    monkeypatch.setattr(causal_reader, "TOKENS_AT_ONCE", 1)
    np.testing.assert_allclose(reader.nats(pieces), expected, rtol=1e-5)


def test_special_tokens_that_are_written_out_stay_text_and_a_text_has_no_start(tokenizer):
    assert reader_of("llama", tokenizer).tokens("a<|endoftext|>")[:3] == [*reader_of("llama", tokenizer).tokens("a<|")]


def test_an_empty_text_costs_nothing_and_none_at_all_is_no_mistake(tokenizer):
    reader = reader_of("llama", tokenizer)
    assert reader.nats([[], [1]])[0] == 0.0
    assert reader.nats([]).shape == (0,)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_states_are_the_last_hidden_layer_s_at_the_last_token(kind, tokenizer):
    reader = reader_of(kind, tokenizer)
    texts = [reader.tokens(text) for text in TEXTS]
    with torch.no_grad():
        expected = [
            reader.model(input_ids=torch.tensor([[EOS, *text]]), output_hidden_states=True).hidden_states[-1][0, -1]
            for text in texts
        ]
    np.testing.assert_allclose(reader.last_states(texts), torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_a_model_that_sees_later_tokens_is_told_from_a_causal_one(tokenizer):
    assert reader_of("llama", tokenizer).is_causal()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        both_ways = transformers.BertLMHeadModel(
            transformers.BertConfig(vocab_size=258, initializer_range=0.3, **shape)
        )
    assert not CausalReader.of(both_ways, tokenizer, name="it").is_causal()


def test_a_tokenizer_with_one_end_uses_it_at_both_and_one_without_any_is_refused(tokenizer):
    assert (reader_of("llama", tokenizer).start_id, reader_of("llama", tokenizer).end_id) == (EOS, EOS)
    assert reader_of("llama", tokenizer).start == "<|endoftext|>"

    class Bare:
        bos_token_id = eos_token_id = None

    with pytest.raises(UserError, match="no start and no end"):
        CausalReader.of(tiny_model("llama"), Bare(), name="it")


def test_samples_are_judged_document_by_document_with_their_ends(tokenizer):
    reader = reader_of("llama", tokenizer)
    first = np.array([*b"ab", BYTES.eos_id, *b"c"])
    verdicts = judged_by_reader(reader, [first, np.array([*b"zz"])], BYTES)
    parts = reader.nats([[*reader.tokens("ab"), EOS], reader.tokens("c"), reader.tokens("zz")])
    np.testing.assert_allclose(verdicts.nats, [parts[0] + parts[1], parts[2]], rtol=1e-6)
    assert verdicts.tokens.tolist() == [4, 2]
    assert verdicts.bytes.tolist() == [3, 2]
    assert verdicts.entropy.tolist() == [token_entropy(first), 0.0]
