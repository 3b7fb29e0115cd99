"""Text that every Python has: its documentation and its source, gathered once and cached.

No network and no download: the language reference of `pydoc_data.topics`, and the standard library's files.
The texts follow the Python version, so figures on them compare within one version only.
"""

import ast
import json
import platform
import sys
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path

from remask.data.cache import cached_folder
from remask.data.readers import FileReader
from remask.errors import UserError, did_you_mean

FORMAT = 1
_FILE = "documents.jsonl"
_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

# Tests are not prose, other people's packages are not Python's, and the two generated files hold this
# machine's build settings and the text of python-docs.
_SKIPPED_FOLDERS = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"})
_SKIPPED_FILES = ("_sysconfigdata", "topics.py")


def python_docs(stdlib: Path) -> Iterator[str]:
    """English technical prose: each topic of the language reference, then the docstrings of each file."""
    topics = _topics()
    yield from (topics[name] for name in sorted(topics))
    for path in stdlib_files(stdlib):
        if document := docstrings(_source(path)):
            yield document


def python_code(stdlib: Path) -> Iterator[str]:
    """The source of each file of the standard library, tests left out."""
    yield from map(_source, stdlib_files(stdlib))


EMBEDDED: dict[str, Callable[[Path], Iterator[str]]] = {
    "python-code": python_code,
    "python-docs": python_docs,
}


def embedded_reader(name: str, *, cache: Path, max_documents: int | None = None) -> FileReader:
    """The documents of an embedded corpus, gathered into the cache at its first use.

    Args:
        name: `python-docs` or `python-code`.
        cache: the cache home.
        max_documents: how many documents to read at most.

    Raises:
        UserError: the name is unknown, or this Python comes without its library's source.
    """
    if name not in EMBEDDED:
        raise UserError(f"unknown embedded corpus {name!r}; {did_you_mean(name, EMBEDDED)}")
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    version = f"{sys.implementation.name}-{platform.python_version()}"
    place = blake2b(f"{FORMAT} {stdlib}".encode(), digest_size=4).hexdigest()
    folder = cache / "texts" / f"{name}-{version}-{place}"

    def gather(target: Path) -> None:
        if not write_documents(target / _FILE, EMBEDDED[name](stdlib)):
            raise UserError(f"this Python has no library source under {stdlib}; use a text file instead")

    cached_folder(folder, build=gather)
    return FileReader(files=(folder / _FILE,), text_key="text", separator=None, max_documents=max_documents)


def stdlib_files(stdlib: Path) -> list[Path]:
    """Every source file of the standard library but tests, in the order of their paths."""
    found = (path.relative_to(stdlib) for path in stdlib.rglob("*.py"))
    kept = (path for path in found if not _SKIPPED_FOLDERS.intersection(path.parts[:-1]))
    named = (path for path in kept if not path.name.startswith(_SKIPPED_FILES))
    return [stdlib / path for path in sorted(named, key=lambda path: path.as_posix())]


def docstrings(source: str) -> str:
    """The docstrings of a module, its classes and functions, in the order of the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in old files
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError):  # templates that are no Python
            return ""
    return "\n\n".join(text for node in _documented(tree) if (text := ast.get_docstring(node)))


def _documented(node: ast.AST) -> Iterator[_Documented]:
    """Module, classes and functions under `node`, in order; expressions hold none and are not walked."""
    if isinstance(node, _Documented):
        yield node
    for field in ("body", "handlers", "orelse", "finalbody", "cases"):
        for child in getattr(node, field, ()):
            yield from _documented(child)


def write_documents(path: Path, documents: Iterator[str]) -> int:
    """Writes one JSON object a line, each with its document under `text`; returns how many."""
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for document in documents:
            file.write(json.dumps({"text": document}, ensure_ascii=False) + "\n")
            count += 1
    return count


def _topics() -> dict[str, str]:
    try:
        from pydoc_data.topics import topics
    except ImportError:  # some distributions leave it out
        return {}
    return topics


def _source(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError:  # the few files in another declared encoding
        return ""
