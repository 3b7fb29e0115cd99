"""The n-gram predictors against a dictionary implementation, by hand, and by chi-square."""

import gzip
import math
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from remask.errors import UserError
from remask.evaluation import ngrams as module
from remask.evaluation import witten_bell
from remask.evaluation.ngrams import (
    ByteNgrams,
    bits_per_byte,
    symbols_text,
    text_symbols,
    token_unigram_nats,
    trivial_bits_per_byte,
)

TEXTS = ["the cat sat on the mat", "the dog sat", "a", "", "then that cat ate the rat and the hat", "mmmmmm"]
SHARED = Path(__file__).resolve().parents[2] / "../shared/data"


def segments_of(symbols, starts):
    """The text cut where a context may not reach over."""
    pieces, piece = [], []
    for i, symbol in enumerate(symbols):
        if piece and (starts[i] or piece[-1] == 256):
            pieces.append(piece)
            piece = []
        piece.append(int(symbol))
    return [*pieces, piece] if piece else pieces


class DictionaryWittenBell:
    """The textbook recursion over dictionaries, one symbol at a time."""

    def __init__(self, symbols, max_order):
        self.counts = defaultdict(Counter)
        for piece in segments_of(symbols, np.zeros(len(symbols), bool)):
            for i, symbol in enumerate(piece):
                for size in range(min(i, max_order - 1) + 1):
                    self.counts[tuple(piece[i - size : i])][symbol] += 1

    def p(self, symbol, context):
        lower = self.p(symbol, context[1:]) if context else 1 / 257
        seen = self.counts.get(tuple(context), Counter())
        if not seen:
            return lower
        return (seen[symbol] + len(seen) * lower) / (seen.total() + len(seen))

    def nats(self, symbols, starts, order):
        return [
            -math.log(self.p(symbol, piece[max(0, i - order + 1) : i]))
            for piece in segments_of(symbols, starts)
            for i, symbol in enumerate(piece)
        ]


def alternating(symbols, low=0):
    return np.arange(len(symbols)) % 7 == low


def test_nats_agree_with_a_dictionary_implementation():
    fitted = text_symbols(TEXTS)
    judged = text_symbols(["the cat ate a mat", "zebra", "", "sat sat"])
    slow = DictionaryWittenBell(fitted, 5)
    for starts in (np.zeros(len(judged), bool), alternating(judged), alternating(judged, 3)):
        fast = ByteNgrams.fit(fitted).nats(judged, starts)
        for order in range(1, 6):
            np.testing.assert_allclose(fast[order - 1], slow.nats(judged, starts, order), rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([97, 98, 99, 255, 256]), min_size=1, max_size=60),
    st.lists(st.tuples(st.sampled_from([97, 98, 100, 255, 256]), st.booleans()), min_size=1, max_size=30),
)
def test_nats_agree_with_a_dictionary_implementation_on_any_text(fitted, judged):
    symbols = np.array([s for s, _ in judged], dtype=np.uint16)
    starts = np.array([b for _, b in judged])
    fitted = np.array(fitted, dtype=np.uint16)
    slow = DictionaryWittenBell(fitted, 4)
    fast = ByteNgrams.fit(fitted, max_order=4).nats(symbols, starts)
    for order in range(1, 5):
        np.testing.assert_allclose(fast[order - 1], slow.nats(symbols, starts, order), rtol=1e-11)


@pytest.mark.parametrize("context", ["", "t", "th", "the ", "sat ", "zz", "xthe", "mmmm", "q\xff"])
def test_probabilities_of_all_symbols_sum_to_one_in_every_context(context):
    model = ByteNgrams.fit(text_symbols(TEXTS))
    prefix = np.frombuffer(context.encode(), dtype=np.uint8).astype(np.uint16)
    rows = np.concatenate([np.append(prefix, s).astype(np.uint16) for s in range(257)])
    starts = np.arange(len(rows)) % (len(prefix) + 1) == 0
    last = model.nats(rows, starts).reshape(5, 257, -1)[:, :, -1]
    np.testing.assert_allclose(np.exp(-last).sum(axis=1), 1, atol=1e-12)


def test_order_one_is_the_hand_computed_frequency():
    model = ByteNgrams.fit(np.array([97, 97, 98, 256], dtype=np.uint16), max_order=1)
    nats = model.nats(np.array([97, 98, 256, 120], dtype=np.uint16))[0]
    expected = [(2 + 3 / 257) / 7, (1 + 3 / 257) / 7, (1 + 3 / 257) / 7, (3 / 257) / 7]
    np.testing.assert_allclose(nats, -np.log(expected), rtol=1e-12)


def test_a_segment_start_isolates_what_follows_from_what_stands_before():
    model = ByteNgrams.fit(text_symbols(TEXTS))
    tail = text_symbols(["the cat"])
    alone = model.nats(tail)
    for head in ("", "the ", "qqqq"):
        joined = np.concatenate([np.frombuffer(head.encode(), np.uint8).astype(np.uint16), tail])
        starts = np.arange(len(joined)) == len(head)
        np.testing.assert_array_equal(model.nats(joined, starts)[:, len(head) :], alone)
    unmarked = model.nats(np.concatenate([text_symbols(["on "])[:-1], tail]))[:, 3:]
    assert not np.allclose(unmarked, alone)


def test_an_end_of_text_isolates_what_follows():
    model = ByteNgrams.fit(text_symbols(TEXTS))
    both = model.nats(text_symbols(["the mat", "sat"]))
    np.testing.assert_array_equal(both[:, 8:], model.nats(text_symbols(["sat"])))


def test_a_context_that_is_too_short_falls_to_the_order_it_suffices_for():
    nats = ByteNgrams.fit(text_symbols(TEXTS)).nats(text_symbols(["the"]))
    assert len(set(nats[:, 0])) == 1
    np.testing.assert_array_equal(nats[2:, 1], nats[1, 1])
    assert nats[1, 1] != nats[0, 1]


def test_uniform_data_cost_about_log_257_at_low_orders():
    rng = np.random.default_rng(0)
    symbols = rng.integers(0, 257, 400_000).astype(np.uint16)
    held_out = rng.integers(0, 257, 20_000).astype(np.uint16)
    means = ByteNgrams.fit(symbols, max_order=3).nats(held_out).mean(axis=1)
    assert abs(means[0] - math.log(257)) < 0.002
    assert math.log(257) < means[1] < math.log(257) + 0.3


def test_the_fitted_text_costs_less_than_text_held_out():
    words = (Path(module.__file__).read_text(), Path(witten_bell.__file__).read_text())
    model = ByteNgrams.fit(text_symbols(words[:1]))
    seen, unseen = (trivial_bits_per_byte(model, text_symbols([w]), len(w.encode())) for w in words)
    assert seen["byte 1-gram"] < unseen["byte 1-gram"]
    assert seen["byte 5-gram"] < unseen["byte 5-gram"] < unseen["byte 2-gram"] < unseen["byte 1-gram"] < 8


def test_fitting_and_judging_do_not_depend_on_the_chunks(monkeypatch):
    symbols = text_symbols(TEXTS * 3)
    whole, judged = ByteNgrams.fit(symbols), text_symbols(["the cat ate the dog", "a mat"])
    expected = whole.nats(judged)
    monkeypatch.setattr(witten_bell, "_FIT_CHUNK", 5)
    monkeypatch.setattr(module, "_EVALUATION_CHUNK", 3)
    chunked = ByteNgrams.fit(symbols)
    for one, other in zip(whole.orders, chunked.orders, strict=True):
        np.testing.assert_array_equal(one.keys, other.keys)
        np.testing.assert_array_equal(one.cumulative, other.cumulative)
    np.testing.assert_array_equal(chunked.nats(judged), expected)


def test_a_saved_model_loads_identical(tmp_path):
    model, judged = ByteNgrams.fit(text_symbols(TEXTS)), text_symbols(["the rat sat"])
    model.save(tmp_path / "models" / "ngrams")
    model.save(tmp_path / "models" / "ngrams")
    loaded = ByteNgrams.load(tmp_path / "models" / "ngrams")
    np.testing.assert_array_equal(loaded.nats(judged), model.nats(judged))
    draws = [m.sample(order=3, length=50, count=3, rng=np.random.default_rng(1)) for m in (model, loaded)]
    np.testing.assert_array_equal(*draws)
    assert [p.name for p in (tmp_path / "models").iterdir()] == ["ngrams"]


def test_a_failed_save_leaves_the_earlier_models_and_nothing_else(tmp_path, monkeypatch):
    model = ByteNgrams.fit(text_symbols(TEXTS))
    model.save(tmp_path / "ngrams")

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full_disk)
        with pytest.raises(OSError, match="No space"):
            model.save(tmp_path / "ngrams")
    assert [p.name for p in tmp_path.iterdir()] == ["ngrams"]
    assert ByteNgrams.load(tmp_path / "ngrams").max_order == 5


@pytest.mark.parametrize("name", ["ngrams.json", "order-3-keys.npy", "order-5-counts.npy"])
def test_damaged_models_are_refused_in_one_line(tmp_path, name):
    ByteNgrams.fit(text_symbols(TEXTS)).save(tmp_path / "ngrams")
    path = tmp_path / "ngrams" / name
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    for damaged in (bytes(content), bytes(content[: len(content) // 2]), b""):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="delete the folder and fit again"):
            ByteNgrams.load(tmp_path / "ngrams")
    path.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        ByteNgrams.load(tmp_path / "ngrams")


def chi_square(drawn, p):
    """The p-value of drawn symbols against probabilities [257], cells expecting fewer than 5 pooled."""
    observed, expected = np.bincount(drawn, minlength=257), p * len(drawn)
    rare = expected < 5
    if rare.any():
        observed = np.append(observed[~rare], observed[rare].sum())
        expected = np.append(expected[~rare], expected[rare].sum())
    return stats.chisquare(observed, expected).pvalue


def next_symbol_law(model, context, order):
    rows = np.concatenate([np.append(context, s).astype(np.uint16) for s in range(257)])
    starts = np.arange(len(rows)) % (len(context) + 1) == 0
    return np.exp(-model.nats(rows, starts)[order - 1].reshape(257, -1)[:, -1])


def drawn_after(drawn, context):
    """The symbols that follow a context at the beginning of drawn texts."""
    return drawn[(drawn[:, : len(context)] == context).all(axis=1)][:, len(context)]


@pytest.mark.parametrize("order", [1, 2, 3])
def test_samples_follow_the_model(order):
    model = ByteNgrams.fit(text_symbols(["abab aab", "abba b", "aaab"]), max_order=3)
    drawn = model.sample(order=order, length=4, count=60_000, rng=np.random.default_rng(order)).astype(int)
    for context in ([], [97], [97, 98], [98, 97], [97, 98, 97], [97, 256]):
        rows = drawn_after(drawn, context)
        assert len(rows) > 300
        assert chi_square(rows, next_symbol_law(model, np.array(context), order)) > 1e-4


def test_samples_of_one_order_are_told_from_those_of_another():
    model = ByteNgrams.fit(text_symbols(["abab aab", "abba b", "aaab"]), max_order=3)
    drawn = model.sample(order=3, length=4, count=60_000, rng=np.random.default_rng(0)).astype(int)
    for wrong in (1, 2):
        law = next_symbol_law(model, np.array([98, 97]), wrong)
        assert chi_square(drawn_after(drawn, [98, 97]), law) < 1e-9


def test_samples_repeat_for_the_same_seed_and_start_anew_after_an_end_of_text():
    model = ByteNgrams.fit(text_symbols(["x", "xy"] * 50), max_order=2)
    one, other = (model.sample(order=2, length=30, count=200, rng=np.random.default_rng(3)) for _ in "ab")
    np.testing.assert_array_equal(one, other)
    assert one.dtype == np.uint16
    after = one[:, 1:][one[:, :-1] == 256]
    assert chi_square(after.astype(int), next_symbol_law(model, np.array([], int), 1)) > 1e-4


def test_bits_per_byte_count_ends_of_text_but_not_their_bytes():
    symbols = np.array([97, 256], dtype=np.uint16)
    values = trivial_bits_per_byte(ByteNgrams.fit(symbols, max_order=2), symbols, 1)
    assert list(values) == ["byte uniform", "byte 1-gram", "byte 2-gram"]
    assert values["byte uniform"] == pytest.approx(2 * math.log2(257))
    assert bits_per_byte(math.log(2) * 12, 4) == pytest.approx(3)
    with pytest.raises(ValueError, match="at least one byte"):
        bits_per_byte(1.0, 0)


def test_token_unigram_nats_are_add_one_smoothed():
    train, judged = np.array([3, 0, 1]), np.array([1, 1, 0])
    assert token_unigram_nats(train, judged) == pytest.approx(-(math.log(4 / 7) + math.log(1 / 7)) / 2)
    assert token_unigram_nats(np.zeros(50, int), np.arange(50)) == pytest.approx(math.log(50))
    with pytest.raises(ValueError, match=r"two \[V\] arrays"):
        token_unigram_nats(train, judged[:2])
    with pytest.raises(ValueError, match="no token"):
        token_unigram_nats(train, judged * 0)


def test_bytes_and_text_translate_both_ways():
    symbols = text_symbols(["naïve", "日本"])
    assert symbols.tolist().count(256) == 2
    assert symbols_text(symbols) == "naïve日本"
    assert symbols_text(np.array([0xC3, 65])) == "\ufffdA"
    assert len(text_symbols([])) == 0


def test_impossible_requests_are_refused():
    symbols = text_symbols(["abc"])
    with pytest.raises(UserError, match="empty"):
        ByteNgrams.fit(symbols[:0])
    with pytest.raises(ValueError, match="1 to 7"):
        ByteNgrams.fit(symbols, max_order=8)
    with pytest.raises(ValueError, match="0 to 256"):
        ByteNgrams.fit(np.array([257]))
    model = ByteNgrams.fit(symbols, max_order=2)
    with pytest.raises(ValueError, match="not fitted"):
        model.sample(order=3, length=1, count=1, rng=np.random.default_rng())
    with pytest.raises(ValueError, match="starts has shape"):
        model.nats(symbols, np.zeros(2, bool))


def test_documents_shorter_than_the_order_leave_the_lower_orders_in_charge():
    model = ByteNgrams.fit(text_symbols(["a", "b"]))
    nats = model.nats(text_symbols(["abab"]))
    np.testing.assert_array_equal(nats[4], nats[1])
    assert model.sample(order=5, length=20, count=2, rng=np.random.default_rng(0)).shape == (2, 20)


def test_trivial_predictors_need_no_torch():
    code = "import sys, remask.evaluation.ngrams, remask.evaluation.quality, remask.health; "
    done = subprocess.run([sys.executable, "-c", code + "sys.exit('torch' in sys.modules)"], check=False)
    assert done.returncode == 0


@pytest.mark.data
def test_orders_improve_on_encyclopedia_text():
    path = SHARED / "wiki_slice/valid.txt.gz"
    if not path.exists():
        pytest.skip("the shared data folder is absent")
    articles = gzip.decompress(path.read_bytes()).decode().split("\n\n")
    held_out = articles[::10]
    model = ByteNgrams.fit(text_symbols(a for i, a in enumerate(articles) if i % 10))
    values = trivial_bits_per_byte(model, text_symbols(held_out), sum(len(a.encode()) for a in held_out))
    ordered = list(values.values())
    assert ordered == sorted(ordered, reverse=True)
    assert 4.5 < values["byte 1-gram"] < 5
    assert 3.4 < values["byte 2-gram"] < 3.9
    assert 2.9 < values["byte 3-gram"] < 3.3
