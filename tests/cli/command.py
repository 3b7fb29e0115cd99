"""The real command line in this process, and recipes so small that a training takes a second."""

import contextlib
import io
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remask.cli import main
from remask.runs import Registry, RunFolder, RunRecord

WORDS = (
    *("the", "a", "of", "list", "returns", "value", "string", "object", "method", "call", "error", "if", "not"),
    *("set", "to", "in", "is", "function", "class"),
)
TINY = [
    *("data.length=16", "network.width=32", "network.layers=1", "network.heads=2", "training.steps=3"),
    *("training.batch_size=4", "training.evaluate_rows=4", "evaluation.rows=4", "evaluation.draws=2"),
    *("sampling.count=1", "sampling.steps=4"),
]
BYTES = ["tokenizer.kind=byte", *TINY]
QUESTIONS = [*(part for part in TINY if not part.startswith("data.length")), "data.max_documents=40"]
"""For recipes of made-up questions, whose rows keep the length that they need."""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        """Standard output as JSON lines; anything else on it fails."""
        return [json.loads(line) for line in self.out.splitlines()]


def remask(*arguments: object) -> Done:
    """Runs a command as `remask` would, in the working folder and environment of this process."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = int(end.code or 0)
    return Done(code, out.getvalue(), err.getvalue())


def succeeds(*arguments: object) -> Done:
    """Runs a command that must end well."""
    done = remask(*arguments)
    assert done.code == 0, done.err
    return done


def refused(*arguments: object, code: int = 2, lines: int = 1) -> str:
    """Runs a command that must end with so many lines of remask's own, and returns them."""
    done = remask(*arguments)
    own = [line for line in done.err.splitlines() if line.startswith("remask: ")]
    assert (done.code, len(own)) == (code, lines), done.err
    assert done.err.splitlines()[-lines:] == own, "the mistake stands last"
    assert "Traceback" not in done.err
    assert done.out == ""
    return "\n".join(own)


def write_text(path: Path, *, paragraphs: int = 60, seed: int = 0) -> Path:
    """A text of random words; the same words for the same seed."""
    draw = random.Random(seed)
    path.write_text("\n\n".join(" ".join(draw.choices(WORDS, k=40)) + "." for _ in range(paragraphs)))
    return path


def newest(home: Path) -> tuple[RunRecord, RunFolder]:
    """The newest run of a home."""
    registry = Registry(home)
    record = registry.find("last")
    return record, registry.folder_of(record)


def weights(folder: RunFolder) -> bytes:
    """The finished model's weights."""
    return (folder.model_path / "model.safetensors").read_bytes()


def run_folders(home: Path) -> list[str]:
    """What lies in a home, the registry's files aside."""
    return sorted(path.name for path in home.glob("*") if path.is_dir()) if home.is_dir() else []
