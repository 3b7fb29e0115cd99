"""Tokenising long texts: on several cores, killed and gone on with, in bounded memory, always to the same bytes."""

import gzip
import io
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.live import Live

from remask.cli.progress import LiveWatcher, TextMeter, amount_done
from remask.data import documents, draft, encoders, encoding, readers, sizes, vocabulary
from remask.data import store as store_module
from remask.data.corpora import open_corpus
from remask.data.documents import LongText
from remask.data.draft import JOURNAL, carry
from remask.data.readers import open_files, read_text
from remask.data.store import build_stores
from remask.data.vocabulary import corpus_bpe, corpus_characters, keyed_sample
from remask.errors import RunError, UserError
from remask.evaluation.trivial import fit_trivial
from remask.tokenizers import ByteTokenizer, CharacterTokenizer, bpe, character_tokenizer, train_bpe

WORDS = ["tea", "café", "東京", "don't", "x_1=[3.5];", "A", "  ", "\t", "\n", "\n\n", "…", "3rd", "'s"]


def make_text(count, *, seed=0):
    rng = random.Random(seed)
    return " ".join(rng.choice(WORDS) for _ in range(count)) + "\n"


DOCUMENTS = [make_text(30 + i % 50, seed=i) for i in range(120)]
BPE = train_bpe(DOCUMENTS, vocab_size=300)
TOKENIZERS = {
    "byte": ByteTokenizer(),
    "bpe": BPE,
    "character": character_tokenizer(DOCUMENTS),
}


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": d}) + "\n" for d in DOCUMENTS))
    return open_corpus(path, cache=tmp_path / "cache")


@pytest.fixture
def small_batches(monkeypatch):
    """Many batches in a small text, each of them sealed."""
    monkeypatch.setattr(store_module, "_BATCH", 500)
    monkeypatch.setattr(store_module, "_BATCHES_BEFORE_SEAL", 1)
    monkeypatch.setattr(encoders, "WORTH_IT", 1000)


def folders(cache):
    return sorted(path for path in (cache / "tokens").iterdir() if path.is_dir())


def cache_bytes(cache):
    (folder,) = folders(cache)
    assert not folder.name.startswith(".")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def undisturbed(corpus, tokenizer, cache):
    build_stores(corpus, tokenizer, cache=cache)
    return cache_bytes(cache)


class Stop(BaseException):
    """As a kill: nothing may be done about it."""


def stop_after(calls):
    def progress(done, total):
        nonlocal calls
        calls -= 1
        if calls == 0:
            raise Stop

    return progress


# ── gone on with ───────────────────────────────────────────────────────────────────────────────────────────────


def pairs_corpus(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps({"q": d[:20] + "?", "a": d}) + "\n" for d in DOCUMENTS))
    return open_corpus(path, prompt_key="q", response_key="a", cache=tmp_path / "cache")


@pytest.mark.parametrize("kind", ["text", "pairs"])
def test_a_build_stopped_again_and_again_ends_with_the_same_bytes(kind, corpus, tmp_path, small_batches):
    corpus = pairs_corpus(tmp_path) if kind == "pairs" else corpus
    stops, first = 0, []

    def stop(done, total):
        first.append(done)
        if len(first) == 3:
            raise Stop

    while stops < 100:
        first.clear()
        try:
            build_stores(corpus, BPE, cache=tmp_path / "stopped", progress=stop)
            break
        except Stop:
            stops += 1
    assert stops > 5
    assert cache_bytes(tmp_path / "stopped") == undisturbed(corpus, BPE, tmp_path / "whole")


def test_what_is_tokenised_is_not_tokenised_again(corpus, tmp_path, small_batches, monkeypatch):
    with pytest.raises(Stop):
        build_stores(corpus, ByteTokenizer(), cache=tmp_path / "a", progress=stop_after(10))
    encoded = []
    monkeypatch.setattr(
        ByteTokenizer, "encode_batch", lambda self, texts: [encoded.append(t) or self.encode(t) for t in texts]
    )
    build_stores(corpus, ByteTokenizer(), cache=tmp_path / "a")
    assert 0 < len(encoded) < len(DOCUMENTS)
    assert encoded == [text for _, text in corpus.walk()][-len(encoded) :]


def cut_short(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "ids cut short": ("train.ids", cut_short),
    "a flipped bit of ids": ("train.ids", flip),
    "a flipped bit of lengths": ("train.byte_lengths", flip),
    "zeros at the end of offsets": ("train.document_offsets", lambda p: p.write_bytes(p.read_bytes()[:-8] + bytes(8))),
    "more than was noted": ("train.ids", lambda p: p.write_bytes(p.read_bytes() + b"more")),
    "a missing file": ("validation.ids", Path.unlink),
    "a missing journal": (JOURNAL, Path.unlink),
    "an empty journal": (JOURNAL, lambda p: p.write_bytes(b"")),
    "a journal cut short": (JOURNAL, cut_short),
    "a flipped bit of the journal": (JOURNAL, flip),
    "a journal of another kind": (JOURNAL, lambda p: p.write_text('{"journal": 0}\n')),
    "a journal that is no text": (JOURNAL, lambda p: p.write_bytes(b"\xff\xfe\x00\n\n")),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_draft_is_gone_on_with_from_where_it_is_whole(name, corpus, tmp_path, small_batches):
    with pytest.raises(Stop):
        build_stores(corpus, BPE, cache=tmp_path / "a", progress=stop_after(12))
    (left,) = folders(tmp_path / "a")
    file, damage = DAMAGE[name]
    damage(left / file)
    build_stores(corpus, BPE, cache=tmp_path / "a")
    assert cache_bytes(tmp_path / "a") == undisturbed(corpus, BPE, tmp_path / "whole")


def test_a_draft_of_other_text_is_left_alone(corpus, tmp_path, small_batches):
    with pytest.raises(Stop):
        build_stores(corpus, ByteTokenizer(), cache=tmp_path / "a", progress=stop_after(3))
    build_stores(corpus, BPE, cache=tmp_path / "a")
    draft_left, built = folders(tmp_path / "a")
    assert draft_left.name.startswith(".")
    assert not built.name.startswith(".")


def test_a_text_that_cannot_be_encoded_leaves_no_draft(corpus, tmp_path, small_batches):
    with pytest.raises(UserError, match="is not among"):
        build_stores(corpus, CharacterTokenizer("abcde"), cache=tmp_path / "a")
    assert folders(tmp_path / "a") == []


@settings(max_examples=60)
@given(st.lists(st.integers(0, 900), max_size=30), st.integers(0, 2000))
def test_bytes_that_a_token_cannot_hold_move_to_the_next(lengths, owed):
    kept, over = [], owed
    for length in lengths:
        over += length
        kept.append(min(over, 255))
        over -= kept[-1]
    found, left = carry(np.array(lengths, dtype=np.int64), owed)
    assert (found.tolist(), left) == (kept, over)


# ── several processes, and a kill of all ───────────────────────────────────────────────────────────────────────


SCRIPT = """
    import sys
    from pathlib import Path
    from remask.data import store
    from remask.data.corpora import open_corpus
    from remask.tokenizers import load_tokenizer

    store._BATCH, store._BATCHES_BEFORE_SEAL = 500, 1
    here = Path(sys.argv[1])
    corpus = open_corpus(here / "corpus.jsonl", cache=here / "cache")
    tokenizer = load_tokenizer(here / "tokenizer")

    def progress(done, total):
        print(done, flush=True)

    store.build_stores(corpus, tokenizer, cache=here / "a", progress=progress, workers=2)
"""


def children(process):
    tasks = Path(f"/proc/{process}/task/{process}/children")
    return [int(word) for word in tasks.read_text().split()] if tasks.exists() else []


def is_running(process):
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_build_of_two_processes_that_is_killed_is_gone_on_with_and_leaves_no_process(
    corpus, tmp_path, small_batches, monkeypatch
):
    BPE.save(tmp_path / "tokenizer")
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        done = [int(process.stdout.readline()) for _ in range(6)]
        workers = children(process.pid)
        os.kill(process.pid, signal.SIGKILL)
    assert done == sorted(done)
    assert sum(len(d.encode()) for d in DOCUMENTS) > done[-1]
    seen = []
    build_stores(corpus, BPE, cache=tmp_path / "a", progress=lambda done, total: seen.append(done))
    assert seen[0] > done[0]
    assert cache_bytes(tmp_path / "a") == undisturbed(corpus, BPE, tmp_path / "whole")
    assert len(workers) == 2 or not Path("/proc/self/task").exists()
    for _ in range(200):
        if not any(map(is_running, workers)):
            break
        signal.sigtimedwait([], 0.05)
    assert not any(map(is_running, workers))


def test_an_error_in_a_process_is_the_users_line(corpus, tmp_path, small_batches):
    with pytest.raises(UserError, match="is not among"):
        build_stores(corpus, CharacterTokenizer("abcde"), cache=tmp_path / "a", workers=2)
    assert folders(tmp_path / "a") == []


def test_a_process_that_dies_is_one_line_and_what_was_done_is_kept(corpus, tmp_path, small_batches, monkeypatch):
    start = encoders._start

    def mortal(folder, dtype):
        encoder = start(folder, dtype)
        encoder.process.kill()
        return encoder

    with pytest.raises(Stop):
        build_stores(corpus, BPE, cache=tmp_path / "a", progress=stop_after(4))
    with monkeypatch.context() as patch:
        patch.setattr(encoders, "_start", mortal)
        with pytest.raises(RunError, match=r"died \(killed by signal 9, perhaps for want of memory\); run again"):
            build_stores(corpus, BPE, cache=tmp_path / "a", workers=2)
    seen = []
    build_stores(corpus, BPE, cache=tmp_path / "a", progress=lambda done, total: seen.append(done))
    assert seen[0] > 4 * 500
    assert cache_bytes(tmp_path / "a") == undisturbed(corpus, BPE, tmp_path / "whole")


def test_processes_are_started_once_there_is_work_for_them(corpus, tmp_path, small_batches, monkeypatch):
    started = []
    start = encoders._start
    monkeypatch.setattr(encoders, "_start", lambda *place: started.append(place) or start(*place))
    monkeypatch.setattr(encoders, "cores", lambda: 3)
    build_stores(corpus, BPE, cache=tmp_path / "short")
    assert started == []
    monkeypatch.setattr(encoders, "WORTH_IT", 4)
    build_stores(corpus, BPE, cache=tmp_path / "long")
    assert len(started) == 3
    assert cache_bytes(tmp_path / "long") == cache_bytes(tmp_path / "short")


# ── one long document ──────────────────────────────────────────────────────────────────────────────────────────


def long_corpus(tmp_path):
    path = tmp_path / "long.txt"
    path.write_text("".join(DOCUMENTS))
    return open_corpus(path, cache=tmp_path / "cache")


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_file_that_is_one_document_is_read_in_pieces_to_the_same_tokens(kind, tmp_path, small_batches, monkeypatch):
    whole = undisturbed(long_corpus(tmp_path), TOKENIZERS[kind], tmp_path / "whole")
    monkeypatch.setattr(readers, "_LONG", 100)
    monkeypatch.setattr(readers, "_BLOCK", 70)
    for module in (documents, encoding):
        monkeypatch.setattr(module, "PIECE", 90)
    corpus = long_corpus(tmp_path)
    assert all(isinstance(document, LongText) for _, document in corpus.items())
    with pytest.raises(Stop):  # a journal within a document
        build_stores(corpus, TOKENIZERS[kind], cache=tmp_path / "pieces", progress=stop_after(7))
    build_stores(corpus, TOKENIZERS[kind], cache=tmp_path / "pieces")
    assert cache_bytes(tmp_path / "pieces") == whole


def test_a_long_document_of_a_table_is_cut_too(corpus, tmp_path, monkeypatch):
    whole = undisturbed(corpus, BPE, tmp_path / "whole")
    for module in (documents, encoding):
        monkeypatch.setattr(module, "PIECE", 90)
    assert undisturbed(corpus, BPE, tmp_path / "pieces") == whole


def test_a_long_document_is_cut_where_a_short_one_is(tmp_path, monkeypatch):
    short = list(long_corpus(tmp_path).walk())
    monkeypatch.setattr(readers, "_LONG", 100)
    assert list(long_corpus(tmp_path).walk()) == short


@settings(max_examples=40)
@given(st.text("ab|-\n", max_size=60), st.sampled_from(["|", "||", "|-|", "\n"]), st.integers(1, 9))
def test_separators_are_found_wherever_blocks_end(tmp_path_factory, text, separator, block):
    path = tmp_path_factory.mktemp("separated") / "a.txt"
    path.write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "_BLOCK", block)
        assert list(read_text(path, separator=separator)) == text.split(separator)


# ── byte pairs ─────────────────────────────────────────────────────────────────────────────────────────────────


TEXTS = st.lists(
    st.sampled_from(
        [
            *WORDS,
            "ab",
            " ",
            "é",
            "\r",
            "\x0b",
            "\x1c",
            "\x85",
            "\u3000",
            "\u200b",
            "٣",
            "²",
            "!",
            "'",
            "-",
            "e\u0301",
            "1",
        ]
    ),
    max_size=25,
).map("".join)


@settings(max_examples=60)
@given(TEXTS, st.integers(0, 25), st.integers(0, 25))
def test_words_are_tokenised_as_the_library_tokenises_the_text(text, a, b):
    expected = BPE._backend.encode(text, add_special_tokens=False).ids
    assert BPE.encode(text).ids.tolist() == expected
    low, high = sorted((a, b))
    parts = list(BPE.cut([text[:low], text[low:high], text[high:]]))
    assert "".join(parts) == text
    assert [token for part in parts for token in BPE.encode(part).ids] == expected


def test_words_are_forgotten_before_they_take_much_memory(monkeypatch):
    monkeypatch.setattr(bpe, "KEPT_WORDS", 20)
    fresh = train_bpe(DOCUMENTS, vocab_size=300)
    text = "".join(f"word{i} " for i in range(200))
    for part in (text[:50], text, text[100:]):
        assert fresh.encode(part).ids.tolist() == BPE._backend.encode(part, add_special_tokens=False).ids
        assert len(fresh._known) <= max(20, len(set(bpe._WORDS.findall(part))))


# ── what is learned from the text ──────────────────────────────────────────────────────────────────────────────


def nothing(done, total):
    pass


def test_a_text_within_the_limit_is_learned_from_whole(corpus):
    assert keyed_sample(corpus, limit=10**6, progress=nothing) == list(corpus.documents("train"))


def test_a_longer_text_is_sampled_from_end_to_end_and_always_the_same(corpus):
    everything = list(corpus.documents("train"))
    sample = keyed_sample(corpus, limit=5000, progress=nothing)
    assert sample == keyed_sample(corpus, limit=5000, progress=nothing)
    assert 4000 < sum(len(text.encode()) for text in sample) <= 5000
    places = [everything.index(text) for text in sample]
    assert places == sorted(places)
    assert places[0] < len(everything) / 3 < 2 * len(everything) / 3 < places[-1]


def test_what_a_vocabulary_is_learned_from_names_its_cache(corpus, tmp_path, monkeypatch):
    corpus_bpe(corpus, vocab_size=280, cache=tmp_path / "a")
    monkeypatch.setattr(vocabulary, "LEARNED_FROM", 2000)
    learned = corpus_bpe(corpus, vocab_size=280, cache=tmp_path / "a")
    sample = keyed_sample(corpus, limit=2000, progress=nothing)
    assert learned.fingerprint == train_bpe(sample, vocab_size=280).fingerprint
    assert len([path for path in (tmp_path / "a" / "tokenizers").iterdir() if path.is_dir()]) == 2


def test_learning_tells_how_far_it_is(corpus, tmp_path):
    calls = []
    corpus_bpe(corpus, vocab_size=280, cache=tmp_path / "a", progress=lambda *call: calls.append(call))
    train = sum(len(text.encode()) for text in corpus.documents("train"))
    assert calls[-1] == (train, train)


def test_the_alphabet_is_gathered_once(corpus, tmp_path, monkeypatch):
    found = corpus_characters(corpus, cache=tmp_path / "a")
    assert found.fingerprint == TOKENIZERS["character"].fingerprint
    monkeypatch.setattr(vocabulary, "_documents", None)
    assert corpus_characters(corpus, cache=tmp_path / "a").fingerprint == found.fingerprint


def test_tokens_are_counted_once_for_trivial_predictors(corpus, tmp_path, monkeypatch):
    store = build_stores(corpus, BPE, cache=tmp_path / "a")["train"]
    first = fit_trivial(store, BPE, cache=tmp_path / "a")
    monkeypatch.setattr(store_module.TokenStore, "token_counts", None)
    monkeypatch.setattr(store_module.TokenStore, "text_bytes", None)
    again = fit_trivial(store, BPE, cache=tmp_path / "a")
    np.testing.assert_array_equal(again.unigram, first.unigram)


# ── how much there is ──────────────────────────────────────────────────────────────────────────────────────────


def write_files(folder):
    import pyarrow
    from pyarrow import parquet

    rows = "".join(json.dumps({"id": i, "text": d}) + "\n" for i, d in enumerate(DOCUMENTS))
    (folder / "a.jsonl").write_text(rows)
    (folder / "a.txt").write_text("".join(DOCUMENTS))
    with gzip.open(folder / "a.txt.gz", "wt") as file:
        file.write("".join(DOCUMENTS))
    with gzip.open(folder / "a.jsonl.gz", "wt") as file:
        file.write(rows)
    parquet.write_table(pyarrow.table({"text": DOCUMENTS}), folder / "a.parquet")


def test_the_size_of_a_text_is_known_about_before_it_is_read(tmp_path):
    write_files(tmp_path)
    size = sum(len(d.encode()) for d in DOCUMENTS)
    for name in ("a.txt", "a.txt.gz", "a.jsonl", "a.jsonl.gz", "a.parquet"):
        found = sizes.file_text(open_files(tmp_path / name, text_key="text", separator=None))
        assert found == pytest.approx(size, rel=0.02), name
    together = open_corpus(tmp_path / "a.txt", validation=tmp_path / "a.parquet", cache=tmp_path / "cache")
    assert sizes.size_estimate(together) == pytest.approx(2 * size, rel=0.02)


def test_a_size_that_cannot_be_told_is_not_told(tmp_path):
    write_files(tmp_path)
    assert sizes.file_text(open_files(tmp_path / "a.jsonl", text_key="body", separator=None)) is None
    (tmp_path / "b.txt.gz").write_bytes(b"")
    assert sizes.file_text(open_files(tmp_path / "b.txt.gz", text_key="text", separator=None)) is None
    limited = open_corpus(tmp_path / "a.jsonl", max_documents=9, cache=tmp_path / "cache")
    assert sizes.size_estimate(limited) is None
    assert draft.layout(10, paired=False).keys() < draft.layout(10, paired=True).keys()


# ── what is shown of it ────────────────────────────────────────────────────────────────────────────────────────


def test_lines_tell_the_amount_the_speed_and_the_time_left_every_ten_seconds():
    now = [100.0]
    meter = TextMeter("tokenizing the text", note="once", clock=lambda: now[0])
    lines = []
    for seconds, done in ((0, 100e6), (5, 150e6), (10, 200e6), (12, 240e6), (20, 300e6)):
        now[0] = 100.0 + seconds
        lines.append(meter.line(int(done), 1_000_000_000))
    assert lines == [
        "tokenizing the text (once)",
        None,
        "tokenizing the text: 200 of 1,000 MB, 10.0 MB/s, 0:01:20 left",
        None,
        "tokenizing the text: 300 of 1,000 MB, 10.0 MB/s, 0:01:10 left",
    ]
    assert meter.line(50_000_000, None) == "tokenizing the text (once)"  # the next text


def test_where_the_end_is_not_known_no_time_is_named():
    assert amount_done(20_000_000, None, speed=2e6) == "20 MB, 2.0 MB/s"
    assert amount_done(20_000_000, 10_000_000, speed=2e6) == "20 MB, 2.0 MB/s"
    assert amount_done(20_000_000, 40_000_000, speed=0.0) == "20 of 40 MB, 0.0 MB/s"


def test_a_terminal_shows_a_bar_for_the_text():
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with Live(console=console, auto_refresh=False) as live:
        watch = LiveWatcher(console, live)
        watch.learning(1_000_000, 4_000_000)
        watch.learning(3_000_000, 4_000_000)
        watch.tokenizing(2_000_000, 4_000_000)
        live.refresh()
    assert "tokenizing the text" in console.file.getvalue()
    assert "2.0/4.0 MB" in console.file.getvalue()
