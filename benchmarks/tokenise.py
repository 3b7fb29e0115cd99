"""From a text file to a token store: speed, memory, and what the same costs when a run starts again.

For each tokenizer, on one core and on all: megabytes (10^6 bytes of UTF-8 text) a second of wall time, the cores that
this kept busy, and peak memory of the main process and of its largest child process. A vocabulary is learned before
that, once. Then the stages of a start that finds everything in the cache: hashing the text, opening the tokenizer,
checking the store, trivial predictors. `library`: the tokenizers library alone (encode_batch_fast, ids thrown away)
on the first part of the same documents, with as many threads.

Run: .venv/bin/python benchmarks/tokenise.py FILE [--separator TEXT] [--tokenizers byte bpe character] [--json]
The folder of caches (--folder) needs three to four times the size of the text; it is removed at the end.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from remask.data.corpora import Corpus
    from remask.tokenizers import Tokenizer

T = TypeVar("T")
LIBRARY_BYTES = 20_000_000
SEPARATOR = "\n\n"


def timed(stage: Callable[[], T]) -> tuple[float, float, T]:
    """Wall and CPU seconds (child processes included, once they have ended) of a stage, and what it gives."""
    wall, busy = time.monotonic(), cpu()
    result = stage()
    return time.monotonic() - wall, cpu() - busy, result


def cpu() -> float:
    """User and system seconds of this process and its ended children."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, who))


def peak_mb(who: int) -> float:
    """Largest resident memory, in MB: of this process, or of any of its ended children."""
    return resource.getrusage(who).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def measure(path: Path, separator: str | None, kind: str, workers: int, cache: Path) -> dict[str, Any]:
    """One tokenizer with so many processes; runs in a process of its own."""
    from remask.data.corpora import open_corpus
    from remask.data.store import build_stores

    corpus = open_corpus(path, separator=separator, cache=cache)
    hashing, _, _ = timed(lambda: corpus.fingerprint)
    learning, _, tokenizer = timed(lambda: make(kind, corpus, cache))
    learning_peak = peak_mb(resource.RUSAGE_SELF)
    wall, busy, stores = timed(
        lambda: build_stores(corpus, tokenizer, cache=cache / f"{kind}-{workers}", workers=workers)
    )
    text = sum(store.text_bytes_total for store in stores.values())
    return {
        "tokenizer": kind,
        "processes": workers,
        "text_mb": text / 1e6,
        "tokens": sum(map(len, stores.values())),
        "mb_per_second": text / 1e6 / wall,
        "cores_busy": busy / wall,
        "mb_per_cpu_second": text / 1e6 / busy,
        "peak_mb": peak_mb(resource.RUSAGE_SELF),
        "largest_helper_mb": peak_mb(resource.RUSAGE_CHILDREN),
        "hashing_seconds": hashing,
        "learning_seconds": learning,
        "learning_peak_mb": learning_peak,
    }


def start_again(path: Path, separator: str | None, kind: str, workers: int, cache: Path) -> dict[str, Any]:
    """The stages of a start, in seconds; runs in a process of its own, after `measure`."""
    from remask.data.corpora import open_corpus
    from remask.data.store import build_stores
    from remask.evaluation.trivial import fit_trivial

    home = cache / f"{kind}-{workers}"
    corpus = open_corpus(path, separator=separator, cache=cache)
    hashing, _, _ = timed(lambda: corpus.fingerprint)
    opening, _, tokenizer = timed(lambda: make(kind, corpus, cache))
    checking, _, stores = timed(lambda: build_stores(corpus, tokenizer, cache=home))
    fitting, _, _ = timed(lambda: fit_trivial(stores["train"], tokenizer, cache=home))
    trivial, _, _ = timed(lambda: fit_trivial(stores["train"], tokenizer, cache=home))
    return {
        "tokenizer": kind,
        "hashing_text": hashing,
        "opening_tokenizer": opening,
        "checking_store": checking,
        "fitting_trivial_once": fitting,
        "trivial": trivial,
        "peak_mb": peak_mb(resource.RUSAGE_SELF),
    }


def library(path: Path, separator: str | None, kind: str, workers: int, cache: Path) -> dict[str, Any]:
    """The tokenizers library alone, with the BPE that `measure` learned, beside ours on the same documents."""
    from remask.data.corpora import open_corpus

    corpus = open_corpus(path, separator=separator, cache=cache)
    tokenizer = make(kind, corpus, cache)
    groups = list(_groups(corpus.documents("train"), LIBRARY_BYTES))
    size = sum(len(text.encode()) for group in groups for text in group) / 1e6
    backend: Any = tokenizer._backend  # pyright: ignore[reportAttributeAccessIssue]

    def plain() -> None:
        for group in groups:
            backend.encode_batch_fast(group, add_special_tokens=False)

    def ours() -> None:
        for group in groups:
            tokenizer.encode_batch(group)

    (wall, busy, _), (own_wall, own_busy, _) = timed(plain), timed(ours)
    return {
        "tokenizer": kind,
        "threads": workers,
        "library_mb_per_second": size / wall,
        "library_mb_per_cpu_second": size / busy,
        "one_process_mb_per_second": size / own_wall,
        "one_process_mb_per_cpu_second": size / own_busy,
    }


def _groups(documents: Iterator[str], size: int) -> Iterator[list[str]]:
    """Documents of about `size` characters in all, 500 at a time."""
    while size > 0 and (group := list(islice(documents, 500))):
        yield group
        size -= sum(map(len, group))


def make(kind: str, corpus: "Corpus", cache: Path) -> "Tokenizer":
    """A tokenizer of the text, from the cache or learned now."""
    from remask.data.vocabulary import corpus_bpe, corpus_characters
    from remask.tokenizers import ByteTokenizer

    makers: dict[str, Callable[[], Tokenizer]] = {
        "byte": ByteTokenizer,
        "bpe": lambda: corpus_bpe(corpus, vocab_size=8192, cache=cache),
        "character": lambda: corpus_characters(corpus, cache=cache),
    }
    return makers[kind]()


STAGES = {"measure": measure, "again": start_again, "library": library}


def in_own_process(stage: str, options: argparse.Namespace, kind: str, workers: int, cache: Path) -> dict[str, Any]:
    """What a stage finds, run where nothing else has used memory."""
    task = [stage, kind, str(workers), str(cache)]
    command = [sys.executable, __file__, str(options.file), "--separator", options.separator, "--task", *task]
    environment = os.environ | {"RAYON_NUM_THREADS": str(workers)}
    done = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def say(result: dict[str, Any], *, as_json: bool) -> None:
    """One line of figures."""
    if as_json:
        print(json.dumps(result), flush=True)
        return
    figures = (
        f"{name} {value:,.2f}" if isinstance(value, float) else f"{name} {value}" for name, value in result.items()
    )
    print(", ".join(figures).replace("_", " "), flush=True)


def main() -> None:
    """Measures every tokenizer on one core and on all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="a text that remask can read")
    parser.add_argument(
        "--separator", default=SEPARATOR, help="between documents; empty: the file is one (default: a blank line)"
    )
    parser.add_argument(
        "--tokenizers", nargs="+", default=["byte", "bpe", "character"], choices=["byte", "bpe", "character"]
    )
    parser.add_argument(
        "--processes", nargs="+", type=int, default=None, help="default: 1, and as many as there are cores"
    )
    parser.add_argument("--folder", type=Path, default=None, help="where the caches go")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--task", nargs=4, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        stage, kind, workers, cache = options.task
        print(json.dumps(STAGES[stage](options.file, options.separator or None, kind, int(workers), Path(cache))))
        return
    from remask.data.encoders import cores

    for kind in options.tokenizers:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            counts = options.processes or sorted({1, cores()})
            for workers in counts:
                say(in_own_process("measure", options, kind, workers, Path(folder)), as_json=options.json)
            say(in_own_process("again", options, kind, counts[-1], Path(folder)), as_json=options.json)
            for workers in counts if kind == "bpe" else []:
                say(in_own_process("library", options, kind, workers, Path(folder)), as_json=options.json)


if __name__ == "__main__":
    main()
