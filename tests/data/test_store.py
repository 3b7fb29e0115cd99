"""Token stores: exact, the same bytes whoever builds them, and never half-built."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from itertools import pairwise

import numpy as np
import pytest

from remask.data import store as store_module
from remask.data.cache import cached_folder, intact
from remask.data.corpora import open_corpus
from remask.data.store import build_stores
from remask.errors import RunError, UserError
from remask.tokenizers import ByteTokenizer, Encoding, train_bpe

DOCUMENTS = [f"Document {i}: the café and {'tea ' * (i % 7)}東京.\n" for i in range(200)]


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": d}) + "\n" for d in DOCUMENTS))
    return open_corpus(path, cache=tmp_path / "cache")


@pytest.fixture(scope="module")
def bpe():
    return train_bpe(DOCUMENTS, vocab_size=300)


def cache_folder(cache):
    (folder,) = [path for path in (cache / "tokens").iterdir() if path.is_dir()]
    return folder


def cache_bytes(cache):
    return {path.name: path.read_bytes() for path in cache_folder(cache).iterdir()}


@pytest.mark.parametrize("kind", ["byte", "bpe"])
def test_a_store_holds_exactly_the_documents(kind, corpus, bpe, tmp_path):
    tokenizer = ByteTokenizer() if kind == "byte" else bpe
    stores = build_stores(corpus, tokenizer, cache=tmp_path / "cache")
    assert tuple(stores) == corpus.splits
    for split, store in stores.items():
        documents = list(corpus.documents(split))
        bounds = store.document_offsets
        found = [tokenizer.decode(store.ids[a:b]) for a, b in pairwise(bounds)]
        assert found == documents
        assert (store.ids[bounds[1:] - 1] == tokenizer.eos_id).all()
        assert (store.ids == tokenizer.eos_id).sum() == store.documents == len(documents)
        total = sum(len(d.encode()) for d in documents)
        assert store.byte_lengths.sum(dtype=np.int64) == store.text_bytes_total == total
        assert bounds[0] == 0
        assert bounds[-1] == len(store)


def test_how_documents_are_grouped_while_tokenizing_changes_nothing(corpus, bpe, tmp_path, monkeypatch):
    build_stores(corpus, bpe, cache=tmp_path / "one")
    monkeypatch.setattr(store_module, "_BATCH", 50)
    build_stores(corpus, bpe, cache=tmp_path / "two")
    assert cache_bytes(tmp_path / "one") == cache_bytes(tmp_path / "two")


def test_the_cache_is_named_by_text_and_tokenizer(corpus, bpe, tmp_path):
    prints = {build_stores(corpus, t, cache=tmp_path)["train"].fingerprint for t in (bpe, ByteTokenizer(), bpe)}
    assert len(prints) == 2


def test_a_finished_cache_is_not_built_again(corpus, tmp_path):
    calls = []
    build_stores(corpus, ByteTokenizer(), cache=tmp_path, progress=lambda done, total: calls.append(done))
    assert calls == [sum(len(d.encode()) for d in DOCUMENTS)]
    build_stores(corpus, ByteTokenizer(), cache=tmp_path, progress=lambda done, total: calls.append(done))
    assert len(calls) == 1


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "truncated ids": ("train.ids", lambda p: p.write_bytes(p.read_bytes()[:-2])),
    "a flipped bit": ("train.byte_lengths", flip),
    "a longer file": ("test.document_offsets", lambda p: p.write_bytes(p.read_bytes() + b"12345678")),
    "a missing file": ("validation.ids", lambda p: p.unlink()),
    "a broken meta file": ("meta.json", lambda p: p.write_text("{")),
    "a broken manifest": ("manifest.json", lambda p: p.write_text('{"train.ids"')),
    "a manifest of another shape": ("manifest.json", lambda p: p.write_text("[1]")),
    "an empty manifest": ("manifest.json", lambda p: p.write_text("{}")),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_cache_is_noticed_and_built_again(name, corpus, tmp_path):
    build_stores(corpus, ByteTokenizer(), cache=tmp_path)
    before = cache_bytes(tmp_path)
    file, damage = DAMAGE[name]
    damage(cache_folder(tmp_path) / file)
    assert not intact(cache_folder(tmp_path))
    calls = []
    build_stores(corpus, ByteTokenizer(), cache=tmp_path, progress=lambda done, total: calls.append(done))
    assert calls
    assert cache_bytes(tmp_path) == before


def test_a_killed_build_leaves_nothing_that_is_read(corpus, tmp_path):
    code = f"""
        import time
        from remask.data.corpora import open_corpus
        from remask.data.store import build_stores
        from remask.tokenizers import ByteTokenizer
        from pathlib import Path

        def wait(done, total):
            print("building", flush=True)
            time.sleep(60)

        cache = Path({str(tmp_path)!r})
        corpus = open_corpus(cache / "corpus.jsonl", cache=cache)
        build_stores(corpus, ByteTokenizer(), cache=cache, progress=wait)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"building\n"
        os.kill(process.pid, signal.SIGKILL)
    left = [path for path in (tmp_path / "tokens").iterdir() if path.is_dir()]
    assert len(left) == 1
    assert left[0].name.startswith(".")
    build_stores(corpus, ByteTokenizer(), cache=tmp_path)
    build_stores(corpus, ByteTokenizer(), cache=tmp_path / "other")
    assert cache_bytes(tmp_path) == cache_bytes(tmp_path / "other")


def test_two_builders_of_one_folder_build_it_once(tmp_path):
    code = f"""
        import time
        from pathlib import Path
        from remask.data.cache import cached_folder

        def build(folder):
            time.sleep(0.3)
            (folder / "x").write_text("x")
            with open({str(tmp_path / "log")!r}, "a") as log:
                log.write("built\\n")

        cached_folder(Path({str(tmp_path / "folder")!r}), build=build)
    """
    both = [subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)]) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert (tmp_path / "log").read_text() == "built\n"


def test_a_cache_that_cannot_be_written_is_one_clear_line(corpus, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="set REMASK_CACHE to a folder that can be written"):
        build_stores(corpus, ByteTokenizer(), cache=tmp_path / "file")


def test_a_full_disk_is_one_clear_line_and_leaves_nothing(tmp_path):
    def fill(folder):
        (folder / "x").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match="the disk is full"):
        cached_folder(tmp_path / "folder", build=fill)
    assert not any(path.is_dir() for path in tmp_path.iterdir())


class Coarse(ByteTokenizer):
    """One token a document, whatever its length, like an unknown-word token; none for a document of dots."""

    def encode(self, text):
        count = 0 if set(text) <= {"."} else 1
        return Encoding(
            ids=np.zeros(count, dtype=np.int32),
            byte_lengths=np.full(count, len(text.encode()), dtype=np.int32),
        )


def coarse_store(tmp_path, documents):
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "a.txt").write_text("|".join(documents))
    (tmp_path / "v.txt").write_text("v")
    corpus = open_corpus(tmp_path / "a.txt", validation=tmp_path / "v.txt", separator="|", cache=tmp_path)
    return build_stores(corpus, Coarse(), cache=tmp_path)["train"]


def test_a_token_of_more_than_255_bytes_leaves_the_rest_to_the_next(tmp_path):
    store = coarse_store(tmp_path, ["a" * 300, "b" * 600, "c", "d"])
    assert store.byte_lengths.tolist() == [255, 45, 255, 255, 91, 0, 1, 0]


def test_bytes_left_after_the_last_token_go_to_the_ones_before(tmp_path):
    store = coarse_store(tmp_path, ["c", "b" * 700])
    assert store.byte_lengths.tolist() == [1, 190, 255, 255]


def test_text_without_any_token_counts_with_its_end_of_text(tmp_path):
    assert coarse_store(tmp_path, ["....", "b"]).byte_lengths.tolist() == [4, 1, 0]


def test_text_that_no_count_can_hold_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match="does not cover this text"):
        coarse_store(tmp_path, ["b" * 900])
    assert not any(path.is_dir() for path in (tmp_path / "tokens").iterdir())


def test_many_ids_are_kept_in_four_bytes(corpus, tmp_path):
    class Wide(ByteTokenizer):
        def __init__(self):
            super().__init__()
            self.vocab_size, self.eos_id, self.fingerprint = 70_002, 70_000, "wide"

    store = build_stores(corpus, Wide(), cache=tmp_path)["train"]
    assert store.ids.dtype == np.uint32
    assert store.ids.max() == 70_000


@pytest.mark.parametrize("kind", ["byte", "bpe"])
def test_the_text_comes_back_as_bytes_with_ends(kind, corpus, bpe, tmp_path):
    tokenizer = ByteTokenizer() if kind == "byte" else bpe
    store = build_stores(corpus, tokenizer, cache=tmp_path)["train"]
    expected = [s for d in corpus.documents("train") for s in [*d.encode(), 256]]
    symbols = store.text_bytes(tokenizer)
    assert symbols.dtype == np.uint16
    assert symbols.tolist() == expected
    for limit in (0, 1, 40, 333):
        assert store.text_bytes(tokenizer, limit=limit).tolist() == expected[:limit]


def test_token_counts_are_those_of_the_split(corpus, bpe, tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "_CHUNK", 100)
    store = build_stores(corpus, bpe, cache=tmp_path)["train"]
    np.testing.assert_array_equal(store.token_counts(), np.bincount(store.ids, minlength=bpe.vocab_size))


def test_stores_are_read_only_and_survive_giving_pages_back(corpus, tmp_path):
    store = build_stores(corpus, ByteTokenizer(), cache=tmp_path)["train"]
    before = store.ids.copy()
    store.release_pages()
    np.testing.assert_array_equal(store.ids, before)
    with pytest.raises(ValueError, match="read-only"):
        store.ids[0] = 1


def test_an_encoding_error_stops_the_build_with_nothing_left(corpus, tmp_path):
    from remask.tokenizers import CharacterTokenizer

    with pytest.raises(UserError, match="is not among the 3 characters"):
        build_stores(corpus, CharacterTokenizer("abc"), cache=tmp_path)
    assert not any(path.is_dir() for path in (tmp_path / "tokens").iterdir())


def test_the_cache_home_follows_the_environment(monkeypatch, tmp_path):
    from remask.data.cache import cache_home

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("REMASK_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_home() == tmp_path / ".cache" / "remask"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_home() == tmp_path / "xdg" / "remask"
    monkeypatch.setenv("REMASK_CACHE", "~/mine")
    assert cache_home() == tmp_path / "mine"


def test_a_document_decoded_in_parts_is_the_same_text(corpus, bpe, tmp_path, monkeypatch):
    store = build_stores(corpus, bpe, cache=tmp_path / "cache")["train"]
    whole = [store.text_bytes(bpe, limit=limit) for limit in (None, 1, 50, 1000)]
    monkeypatch.setattr(store_module, "_BATCH", 3)
    parts = [store.text_bytes(bpe, limit=limit) for limit in (None, 1, 50, 1000)]
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one, other)
