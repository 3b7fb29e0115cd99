"""Folders of computed files on disk: written whole or not at all, checked each time they are opened."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from remask.errors import RunError, UserError

MANIFEST = "manifest.json"
_BLOCK = 1 << 20


def cache_home() -> Path:
    """The folder for what can be computed again: REMASK_CACHE, or remask in the user's cache folder."""
    if chosen := os.environ.get("REMASK_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base).expanduser() if base else Path.home() / ".cache") / "remask"


def cached_folder(folder: Path, *, build: Callable[[Path], None]) -> Path:
    """The intact `folder`, built first when it is missing or damaged.

    The files are written into a temporary folder beside it, which is renamed when complete, so a killed build
    leaves nothing that is later read. One process builds; others that want the same folder wait for it.

    Args:
        folder: where the files stand; its name must hold everything that decides them.
        build: writes the files into the folder it is given.

    Returns:
        `folder`, whose files have the sizes and hashes that its manifest lists.

    Raises:
        UserError: the place cannot be written.
        RunError: the disk is full.
    """
    if intact(folder):
        return folder
    with writing(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{folder.name}.lock"):
            if not intact(folder):
                _replace(folder, build)
    return folder


def grown_folder(folder: Path, *, build: Callable[[Path], None]) -> Path:
    """As `cached_folder`, for a long build: one that was killed or interrupted leaves its files to the next.

    Args:
        folder: where the files stand; its name must hold everything that decides them.
        build: writes the files into the folder it is given, where those of an earlier build may stand. What it keeps
            for itself alone has a name with a dot in front, and is removed in the end.

    Raises:
        UserError: the place cannot be written, or what `build` raises; then nothing is left.
        RunError: the disk is full; then nothing is left. Or what `build` raises; then its files are.
    """
    if intact(folder):
        return folder
    with writing(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{folder.name}.lock"):
            if not intact(folder):
                draft = folder.parent / f".{folder.name}.growing"
                draft.mkdir(exist_ok=True)
                try:
                    build(draft)
                    _install(draft, folder)
                except (UserError, OSError):
                    shutil.rmtree(draft, ignore_errors=True)
                    raise
    return folder


def intact(folder: Path) -> bool:
    """Whether every file that the manifest of `folder` lists is there with its size and hash."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        wanted = [(folder / name, entry["bytes"], entry["blake2b"]) for name, entry in manifest.items()]
        sizes_right = all(path.stat().st_size == size for path, size, _ in wanted)
        return bool(wanted) and sizes_right and _hashes([path for path, _, _ in wanted]) == [d for _, _, d in wanted]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return False


def file_hash(path: Path) -> str:
    """The blake2b hash of a file's bytes, read a block at a time."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turns the system's errors while writing below `place` into one clear line.

    Raises:
        UserError: the place is read-only, not permitted or not a folder.
        RunError: the disk or the user's share of it is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(f"the disk is full while writing to {place}; free some space, then run again") from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise UserError(
                f"cannot write to the cache folder {place} ({error.strerror}); set REMASK_CACHE to a folder "
                "that can be written"
            ) from None
        raise


def _replace(folder: Path, build: Callable[[Path], None]) -> None:
    # The lock is held, so whatever an earlier build left half-done belongs to nobody.
    for left in folder.parent.glob(f".{folder.name}.building-*"):
        shutil.rmtree(left, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.building-"))
    try:
        build(temporary)
        _install(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _install(temporary: Path, folder: Path) -> None:
    """Seals complete files with a manifest and puts them in their place."""
    own = [path for path in temporary.iterdir() if path.name.startswith(".")]
    files = sorted(path for path in temporary.iterdir() if path not in own and path.name != MANIFEST)
    manifest = {p.name: {"bytes": p.stat().st_size, "blake2b": h} for p, h in zip(files, _hashes(files), strict=True)}
    (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    temporary.chmod(0o755)
    for path in own:
        path.unlink()
    if folder.exists():  # damaged
        shutil.rmtree(folder)
    temporary.rename(folder)


def _hashes(paths: Sequence[Path]) -> list[str]:
    """The hash of each file, two at a time: the library lets go of the interpreter while it hashes."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        return list(pool.map(file_hash, paths))
