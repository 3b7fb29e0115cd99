"""Where a run's numbers come from: the code's commit, the machine, the versions."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_GIT_SECONDS = 10.0  # a repository on a slow disk must not hold up a training


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What a run ran on.

    Attributes:
        git_commit: the full commit, or None outside a repository.
        git_dirty: whether a tracked file differs from that commit; None outside a repository.
        git_tag: the tag that names exactly that commit; None where no tag does.
        host: the machine's name.
        system: e.g. `Linux x86_64`.
        cpu: the processor's model name.
        cores: processor cores that this process may use.
        memory_bytes: the machine's memory, or None where the system does not say.
        python_version: e.g. `3.11.7`.
        torch_version: e.g. `2.13.0+cpu`, or None if not installed.
        remask_version: remask's own version, or None if not installed.
    """

    git_commit: str | None
    git_dirty: bool | None
    git_tag: str | None
    host: str
    system: str
    cpu: str
    cores: int
    memory_bytes: int | None
    python_version: str
    torch_version: str | None
    remask_version: str | None

    @property
    def machine(self) -> str:
        """Host, system, processor, cores and memory in words."""
        memory = f", {self.memory_bytes / 2**30:.0f} GiB" if self.memory_bytes else ""
        cores = "1 core" if self.cores == 1 else f"{self.cores} cores"
        return f"{self.host} ({self.system}, {self.cpu}, {cores}{memory})"

    def record_fields(self) -> dict[str, Any]:
        """The fields of a `RunRecord` that provenance fills."""
        return {
            "git_commit": self.git_commit,
            "git_dirty": self.git_dirty,
            "git_tag": self.git_tag,
            "machine": self.machine,
            "python_version": self.python_version,
            "torch_version": self.torch_version,
        }


def collect_provenance(folder: Path | None = None) -> Provenance:
    """Looks up where this process runs; imports neither torch nor numpy.

    Args:
        folder: whose repository names the commit; by default the working folder's, and where that is in
            none, the checkout that remask itself is imported from.
    """
    repository = _folder_of_code() if folder is None else folder
    commit, dirty, tag = (None, None, None) if repository is None else _commit(repository)
    return Provenance(
        git_commit=commit,
        git_dirty=dirty,
        git_tag=tag,
        host=platform.node() or "unknown",
        system=f"{platform.system()} {platform.machine()}",
        cpu=_cpu_model(),
        cores=_cores(),
        memory_bytes=_memory_bytes(),
        python_version=platform.python_version(),
        torch_version=_version("torch"),
        remask_version=_version("remask"),
    )


def _folder_of_code() -> Path | None:
    if _head(Path.cwd()) is not None:
        return Path.cwd()
    package = Path(__file__).resolve().parent
    # a package installed beneath somebody's repository is not that repository's code unless tracked there
    tracked = _git(package, "ls-files", "--error-unmatch", Path(__file__).name) is not None
    return package if tracked else None


def _commit(folder: Path) -> tuple[str | None, bool | None, str | None]:
    commit = _head(folder)
    if commit is None:
        return None, None, None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    tag = _git(folder, "describe", "--tags", "--exact-match", "HEAD")
    return commit, None if changes is None else bool(changes), tag or None


def _head(folder: Path) -> str | None:
    return _git(folder, "rev-parse", "--verify", "HEAD")


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints, or None where there is no git, no repository, or no answer in time."""
    import subprocess  # imported here, like importlib.metadata below: listing runs needs neither

    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_GIT_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown processor"


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
