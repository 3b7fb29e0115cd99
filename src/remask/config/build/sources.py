"""The texts that a recipe names: one, or several mixed, tokenized first or streamed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

from remask.config import schema
from remask.data.corpora import Corpus, all_training, mixed_corpus, open_corpus
from remask.data.hub import PREFIX
from remask.data.readers import FileReader, Reader, open_files
from remask.data.splits import Split
from remask.data.streams import FileShards, Stream, open_stream
from remask.errors import UserError

SAMPLE_BYTES = 16_000_000
"""Text that is sampled from a stream where the recipe does not say."""


@dataclass(frozen=True, kw_only=True)
class Sources:
    """A recipe's texts.

    Attributes:
        main: the text of `data.source` with what is held out; of a stream, its sample.
        others: the training text of the mixture's further sources; of streams, their samples.
        streams: what is streamed, the main source first; empty where everything is tokenized first.
    """

    main: Corpus
    others: tuple[Corpus, ...] = ()
    streams: tuple[Stream, ...] = ()

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all text that training and evaluation see."""
        parts = [corpus.fingerprint for corpus in (self.main, *self.others)]
        parts += [stream.fingerprint for stream in self.streams]
        return parts[0] if len(parts) == 1 else blake2b(" ".join(parts).encode(), digest_size=16).hexdigest()

    @property
    def learned_from(self) -> Corpus:
        """What tokenizers are learned from."""
        return mixed_corpus(self.main, self.others)


def build_sources(data: schema.DataSpec, *, cache: Path) -> Sources:
    """Opens the texts that a recipe names.

    Raises:
        UserError: one is missing, empty or named twice, or there is no held-out text beside a stream.
    """
    _refuse_repeats(data)
    return _streamed(data, cache=cache) if data.streaming else _whole(data, cache=cache)


def _whole(data: schema.DataSpec, *, cache: Path) -> Sources:
    main = _opened(data, validation=data.validation, test=data.test, cache=cache)
    others = (_opened(entry, validation=None, test=None, cache=cache) for entry in data.mixture)
    return Sources(main=main, others=tuple(map(all_training, others)))


def _opened(
    spec: schema.DataSpec | schema.SourceSpec, *, validation: str | None, test: str | None, cache: Path
) -> Corpus:
    return open_corpus(
        spec.source,
        validation=validation,
        test=test,
        text_key=spec.text_key,
        prompt_key=spec.prompt_key,
        response_key=spec.response_key,
        separator=spec.separator,
        config=spec.config,
        streaming=spec.max_documents is not None,  # the first rows of a dataset, without downloading the others
        max_documents=spec.max_documents,
        cache=cache,
    )


def _streamed(data: schema.DataSpec, *, cache: Path) -> Sources:
    sample = data.sample_bytes or SAMPLE_BYTES
    main, *others = streams = tuple(
        open_stream(
            spec.source,
            text_key=spec.text_key,
            separator=spec.separator,
            config=spec.config,
            sample_bytes=sample,
            cache=cache,
        )
        for spec in (data, *data.mixture)
    )
    given: dict[Split, str | None] = {"validation": data.validation, "test": data.test}
    own: dict[Split, Reader] = {
        split: open_files(Path(place), text_key=data.text_key, separator=data.separator)
        for split, place in given.items()
        if place is not None
    }
    held_out = {**main.sample.held_out, **own}
    if "validation" not in held_out:
        raise UserError(
            f"data.streaming reads all of {data.source} for training: name held-out text with data.validation=FILE, "
            "or give data.streaming=false"
        )
    _refuse_held_out_shards(streams, own)
    samples = tuple(all_training(stream.sample) for stream in others)
    return Sources(main=replace(main.sample, held_out=held_out), others=samples, streams=streams)


def _refuse_repeats(data: schema.DataSpec) -> None:
    """No text stands twice in a mixture: its weight would be another, and held-out text would be trained on."""
    seen: set[tuple[str, str | None]] = {
        (_identity(place), None) for place in (data.validation, data.test) if place is not None
    }
    for spec in (data, *data.mixture):
        if (_identity(spec.source), spec.config) in seen and data.mixture:
            raise UserError(
                f"data.mixture: {spec.source} is given twice (as data.source, data.validation, data.test or another "
                "entry); leave one out"
            )
        seen.add((_identity(spec.source), spec.config))


def _identity(source: str) -> str:
    place = Path(source.removeprefix(PREFIX)).expanduser()
    return str(place.resolve()) if place.exists() else source


def _refuse_held_out_shards(streams: Iterable[Stream], held_out: Mapping[Split, Reader]) -> None:
    shards = [stream.shards for stream in streams]
    files = {path.resolve() for shard in shards if isinstance(shard, FileShards) for path in shard.reader.files}
    for split, reader in held_out.items():
        for path in reader.files if isinstance(reader, FileReader) else ():
            if path.resolve() in files:
                raise UserError(f"data.{split}: {path} is also one of the files streamed for training; move it")
