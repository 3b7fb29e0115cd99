"""How fast streamed text becomes batches, and how long it takes to take a stream up again.

    python benchmarks/streams.py FOLDER [--separator TEXT] [--tokenizer bpe] [--workers 2] [--steps 150]

FOLDER holds .jsonl, .txt or .parquet files. One line of JSON a setting: tokens and UTF-8 bytes of text a second, the
seconds until the first batch, those until the first batch of a reading that is taken up where the last one ended, and
the peak memory of this process (workers not counted).
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

from remask.data.mixing import ALONE
from remask.data.stream_feed import LanePlan, StreamFeed
from remask.data.streams import Stream, open_stream
from remask.tokenizers import ByteTokenizer, Tokenizer, train_bpe

BATCH_SIZE, LENGTH, LANES, SHUFFLE = 64, 512, 8, 1024
SAMPLE_BYTES = 2_000_000


def make_tokenizer(kind: str, stream: Stream) -> Tokenizer:
    """Bytes, or 4096 byte pairs learned from the sample."""
    if kind == "byte":
        return ByteTokenizer()
    return train_bpe(stream.sample.documents("train"), vocab_size=4096)


def measure(stream: Stream, tokenizer: Tokenizer, *, workers: int, steps: int) -> dict[str, float]:
    """Reads so many steps, then one more from the state behind them."""
    plan = LanePlan(
        streams=[stream],
        mixture=ALONE,
        tokenizer=tokenizer,
        length=LENGTH,
        lanes=LANES,
        shuffle=SHUFFLE,
        seed=1,
    )
    feed = StreamFeed(plan, bytes_per_target=[1.0], batch_size=BATCH_SIZE, workers=workers)
    began = time.perf_counter()
    reading = feed.open(start_step=0, process=0, processes=1)
    next(reading)
    first, began = time.perf_counter() - began, time.perf_counter()
    text_bytes = sum(int(batch.byte_lengths.sum()) for _ in range(steps) for batch in next(reading))
    seconds, state = time.perf_counter() - began, reading.state()
    reading.close()
    began = time.perf_counter()
    reading = feed.open(start_step=steps + 1, process=0, processes=1, state=state)
    next(reading)
    resumed = time.perf_counter() - began
    reading.close()
    return {
        "tokens_per_second": round(steps * BATCH_SIZE * LENGTH / seconds),
        "megabytes_per_second": round(text_bytes / seconds / 1e6, 2),
        "seconds_to_first_batch": round(first, 2),
        "seconds_to_resume": round(resumed, 2),
        "peak_megabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
    }


def main() -> None:
    """Measures each tokenizer with each number of workers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--separator", default=None, help="between two documents of a text file")
    parser.add_argument("--tokenizer", nargs="+", choices=["byte", "bpe"], default=["byte", "bpe"])
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 2])
    parser.add_argument("--steps", type=int, default=150)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        options = {"separator": chosen.separator, "sample_bytes": SAMPLE_BYTES, "cache": Path(cache)}
        stream = open_stream(str(chosen.folder), **options)
        for kind in chosen.tokenizer:
            tokenizer = make_tokenizer(kind, stream)
            for workers in chosen.workers:
                figures = measure(stream, tokenizer, workers=workers, steps=chosen.steps)
                row = {"shards": len(stream.shards), "tokenizer": kind, "workers": workers, **figures}
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
