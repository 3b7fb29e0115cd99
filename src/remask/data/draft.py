"""Token files while they are written: a killed build is taken up where its journal ends.

The files only grow. Every so often a line of the journal says how far each of them, and the text, has come, with a
hash of what each has grown by; whatever stands behind the last line that holds true is cut off and written again.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from remask.data.documents import PIECE
from remask.data.encoding import MOST, Block
from remask.errors import UserError

JOURNAL = ".journal.jsonl"
_CHUNK = 1 << 22
_HEADER = {"journal": 1, "piece": PIECE}


def layout(vocab_size: int, *, paired: bool) -> dict[str, str]:
    """Name and little-endian type of each file of a split."""
    files = {
        "ids": "<u2" if vocab_size <= 1 << 16 else "<u4",
        "byte_lengths": "|u1",
        "document_offsets": "<i8",
    }
    return files | ({"prompt_lengths": "<i8"} if paired else {})


@dataclass
class Tally:
    """How far a split has come.

    Attributes:
        tokens: ends of text among them.
        documents: whole ones.
        text_bytes: UTF-8 bytes of text.
        owed: bytes of text that no token's uint8 had room for yet.
    """

    tokens: int = 0
    documents: int = 0
    text_bytes: int = 0
    owed: int = 0


@dataclass
class _Growing:
    """A file that is written on."""

    file: BinaryIO
    size: int
    digest: Any = field(default_factory=lambda: blake2b(digest_size=16))

    def put(self, values: np.ndarray) -> None:
        data = values.tobytes()
        self.file.write(data)
        self.digest.update(data)
        self.size += len(data)

    def seal(self) -> tuple[int, str]:
        self.file.flush()
        grown = self.digest.hexdigest()
        self.digest = blake2b(digest_size=16)
        return self.size, grown


class Draft:
    """The files of a token store in a folder that another process may have left half-done.

    Use it as a context: it opens the files and closes them.

    Args:
        folder: where the files stand.
        splits: which splits there are.
        dtypes: name and type of each file of a split, from `layout`.
    """

    def __init__(self, folder: Path, *, splits: tuple[str, ...], dtypes: Mapping[str, str]) -> None:
        self.folder, self._dtypes = folder, dtypes
        self.units = 0
        self.tallies = {split: Tally() for split in splits}
        self._names = [f"{split}.{name}" for split in splits for name in dtypes]
        self._growing: dict[str, _Growing] = {}
        self._open = ExitStack()

    @property
    def text_bytes(self) -> int:
        """UTF-8 bytes of text so far."""
        return sum(tally.text_bytes for tally in self.tallies.values())

    def __enter__(self) -> "Draft":
        sizes = self._take_up()
        for name in self._names:
            file = self._open.enter_context((self.folder / name).open("r+b" if sizes else "wb"))
            file.truncate(sizes.get(name, 0))
            file.seek(0, os.SEEK_END)
            self._growing[name] = _Growing(file, sizes.get(name, 0))
        if not sizes:
            for split in self.tallies:
                self._put(split, "document_offsets", np.zeros(1))
        self._journal = self._open.enter_context((self.folder / JOURNAL).open("a", encoding="utf-8"))
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def add(self, blocks: Mapping[str, Block], *, units: int) -> None:
        """Writes the tokens of so many units."""
        for split, block in blocks.items():
            self._add(split, block, self.tallies[split])
        self.units += units

    def _add(self, split: str, block: Block, tally: Tally) -> None:
        lengths = block.byte_lengths
        tally.text_bytes += int(lengths.sum(dtype=np.int64))
        if tally.owed or lengths.dtype != np.uint8:
            lengths, tally.owed = carry(lengths.astype(np.int64), tally.owed)
        self._put(split, "ids", block.ids)
        self._put(split, "byte_lengths", lengths)
        self._put(split, "document_offsets", tally.tokens + block.ends)
        if len(block.prompt_lengths):
            self._put(split, "prompt_lengths", block.prompt_lengths)
        tally.tokens += len(block.ids)
        tally.documents += len(block.ends)

    def seal(self) -> None:
        """Notes how far everything has come: from here a killed build is taken up."""
        line = {
            "units": self.units,
            "tallies": {split: asdict(tally) for split, tally in self.tallies.items()},
            "files": {name: growing.seal() for name, growing in self._growing.items()},
        }
        self._journal.write(_line(line))
        self._journal.flush()

    def finish(self) -> None:
        """Closes the files, which are complete.

        Raises:
            UserError: the text has more bytes than its tokens can count.
        """
        self.seal()
        self._open.close()
        for split, tally in self.tallies.items():
            if tally.owed:
                pay_backwards(self.folder / f"{split}.byte_lengths", tally.owed)

    def _put(self, split: str, name: str, values: np.ndarray) -> None:
        self._growing[f"{split}.{name}"].put(values.astype(self._dtypes[name], copy=False))

    def _take_up(self) -> dict[str, int]:
        """Finds the last line of the journal that holds true; the size of each file there, {} for a new build."""
        sizes: dict[str, int] = {}
        lines = [_line(_HEADER)]
        with ExitStack() as stack, suppress(OSError):
            files = {name: stack.enter_context((self.folder / name).open("rb")) for name in self._names}
            for record in _records(self.folder / JOURNAL):
                grown = record["files"]
                if not all(_holds(files[name], sizes.get(name, 0), *grown[name]) for name in self._names):
                    break
                self.units = record["units"]
                self.tallies = {split: Tally(**record["tallies"][split]) for split in self.tallies}
                sizes = {name: grown[name][0] for name in self._names}
                lines.append(_line(record))
        new = self.folder / f"{JOURNAL}.new"
        new.write_text("".join(lines), encoding="utf-8")
        new.replace(self.folder / JOURNAL)
        return sizes


def _line(record: Mapping[str, Any]) -> str:
    """A record as a line that begins with its own hash."""
    text = json.dumps(record)
    return f"{blake2b(text.encode(), digest_size=16).hexdigest()} {text}\n"


def _records(journal: Path) -> Iterator[dict[str, Any]]:
    """The records of a journal of this kind, as far as they are whole."""
    header, *lines = journal.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True) or [""]
    if header != _line(_HEADER):
        return
    for line in lines:
        try:
            record = json.loads(line.partition(" ")[2])
        except ValueError:
            return
        if _line(record) != line:
            return
        yield record


def _holds(file: BinaryIO, start: int, end: int, digest: str) -> bool:
    """Whether the bytes from `start` to `end` are what the journal says."""
    file.seek(start)
    found = blake2b(digest_size=16)
    left = end - start
    while left > 0 and (data := file.read(min(left, _CHUNK))):
        found.update(data)
        left -= len(data)
    return left == 0 and found.hexdigest() == digest


def carry(lengths: np.ndarray, owed: int) -> tuple[np.ndarray, int]:
    """Moves what exceeds 255 to the next token.

    With S_i the bytes owed and given up to token i, tokens 1 to i have taken D_i = min(S_i, D_{i−1} + 255), which is
    255·i + min(0, min_{j ≤ i} (S_j − 255·j)).

    Args:
        lengths: int64 [N].
        owed: bytes left by the tokens before these.

    Returns:
        The lengths, none above 255, and what is left after the last.
    """
    given = owed + np.cumsum(lengths)
    room = MOST * np.arange(1, len(lengths) + 1)
    taken = room + np.minimum(np.minimum.accumulate(given - room), 0)
    return np.diff(taken, prepend=0), owed if len(lengths) == 0 else int(given[-1] - taken[-1])


def pay_backwards(path: Path, owed: int) -> None:
    """Adds bytes that were left after the last document to the last tokens that have room.

    Raises:
        UserError: there is not enough room.
    """
    lengths = np.memmap(path, dtype=np.uint8, mode="r+")
    for end in range(len(lengths), 0, -_CHUNK):
        part = lengths[max(0, end - _CHUNK) : end]
        room = (MOST - part[::-1].astype(np.int64)).cumsum()
        paid = np.minimum(room, owed)
        part[::-1] += np.diff(paid, prepend=0).astype(np.uint8)
        owed -= int(paid[-1])
        if owed == 0:
            return
    raise UserError(
        f"this tokenizer leaves no room to count the text's bytes (more than {MOST} a token on average): it "
        "does not cover this text; choose another tokenizer"
    )
