"""What `remask doctor` looks at: whether this machine has what remask needs, else what to do about it."""

import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

_OLDEST_PYTHON = (3, 11)
_LEAST_MEMORY = 2 * 2**30
_LEAST_DISK = 2**30
_DEVELOPERS_EXTRAS = frozenset({"dev", "test"})
_PROVIDES = {"datasets": "Hugging Face datasets as a source", "parquet": ".parquet files as a source"}


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what was looked at.
        status: `ok`; `note`: remask works without it, but something is to be gained; `problem`: it is needed.
        detail: what was found.
        remedy: what to do about a note or a problem, else empty.
    """

    name: str
    status: Literal["ok", "note", "problem"]
    detail: str
    remedy: str = ""


def checks() -> Iterator[Check]:
    """Everything that is looked at, in the order in which it is printed. No check raises."""
    for name, look in _LOOKS:
        try:
            yield from look()
        except Exception as error:
            text = " ".join(str(error).split()) or type(error).__name__
            yield Check(name=name, status="problem", detail=text, remedy="see the message; then run doctor again")


def _python() -> Iterator[Check]:
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info >= _OLDEST_PYTHON:
        yield Check(name="python", status="ok", detail=detail)
    else:
        remedy = "install Python 3.11 or later, and remask with it"
        yield Check(name="python", status="problem", detail=detail, remedy=remedy)


@dataclass(frozen=True)
class Requirement:
    """A package that remask uses: name, version bounds such as `<3,>=2.0`, extra ('': always needed)."""

    package: str
    bounds: str
    extra: str


def parse_requirement(line: str) -> Requirement:
    """Reads `name<3,>=2.0; extra == 'x'`, the form in which an installed package lists what it requires."""
    wanted, _, condition = line.partition(";")
    extra = re.search(r"""extra\s*==\s*['"]([^'"]+)""", condition)
    package = re.match(r"[A-Za-z0-9._-]+", wanted.strip())
    assert package is not None, f"not a requirement: {line}"
    bounds = re.sub(r"\[.*?\]|[\s()]", "", wanted.strip()[package.end() :])
    return Requirement(package[0], bounds, extra[1] if extra else "")


def satisfies(version: str, bounds: str) -> bool:
    """Whether a version such as `2.13.0+cpu` lies within `<2.14,>=2.11`; only `>=` and `<` are judged."""
    for bound in filter(None, bounds.split(",")):
        match = re.match(r"(>=|<)([0-9.]+)$", bound)
        if match is None:
            continue
        ours, limit = _release(version), _release(match[2])
        if (ours < limit) if match[1] == ">=" else (ours >= limit):
            return False
    return True


def _release(version: str) -> tuple[int, ...]:
    """2.13.0+cpu -> (2, 13), so that 2.13 and 2.13.0 are equal."""
    numbers = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
    parts = [int(part) for part in numbers[0].split(".")] if numbers else []
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def _requirements() -> list[Requirement]:
    return [parse_requirement(line) for line in metadata.requires("remask") or []]


def _packages() -> Iterator[Check]:
    try:
        wanted = _requirements()
        yield Check(name="remask", status="ok", detail=metadata.version("remask"))
    except metadata.PackageNotFoundError:
        remedy = "run pip install -e . in the folder of remask's pyproject.toml"
        yield Check(name="remask", status="problem", detail="not installed", remedy=remedy)
        return
    for requirement in wanted:
        if not requirement.extra:
            yield _package(requirement)


def _package(requirement: Requirement) -> Check:
    name, bounds = requirement.package, requirement.bounds
    install = f"pip install '{name}{bounds}'"
    version = _version(name)
    if version is None:
        return Check(name=name, status="problem", detail="not installed", remedy=install)
    if not satisfies(version, bounds):
        return Check(name=name, status="problem", detail=f"{version}, wanted {bounds}", remedy=install)
    return Check(name=name, status="ok", detail=version)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _extras() -> Iterator[Check]:
    try:
        optional = [r for r in _requirements() if r.extra and r.extra not in _DEVELOPERS_EXTRAS]
    except metadata.PackageNotFoundError:
        return  # said by the check of packages
    for extra in dict.fromkeys(r.extra for r in optional):
        members = [r for r in optional if r.extra == extra]
        missing = [r.package for r in members if _version(r.package) is None]
        use, name = _PROVIDES.get(extra, "optional"), f"extra {extra}"
        if missing:
            detail = f"not installed: {', '.join(missing)} ({use})"
            yield Check(name=name, status="note", detail=detail, remedy=f"pip install 'remask[{extra}]'")
        else:
            found = ", ".join(f"{r.package} {_version(r.package)}" for r in members)
            yield Check(name=name, status="ok", detail=f"{found} ({use})")


def _devices() -> Iterator[Check]:
    try:
        import torch
    except Exception as error:  # a broken installation raises OSError and others too
        detail = f"torch does not load: {' '.join(str(error).split())[:200]}"
        yield Check(name="torch", status="problem", detail=detail, remedy="pip install --force-reinstall torch")
        return
    yield Check(name="device cpu", status="ok", detail=f"{torch.get_num_threads()} threads in torch")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            yield _cuda_device(index)
    elif shutil.which("nvidia-smi") or Path("/proc/driver/nvidia").exists():
        detail = f"an NVIDIA driver is here, but torch {torch.__version__} cannot use it"
        remedy = "install a CUDA build of torch that fits the driver: https://pytorch.org/get-started"
        yield Check(name="device cuda", status="note", detail=detail, remedy=remedy)
    else:
        yield Check(name="device cuda", status="ok", detail="none; remask computes on the CPU")
    if torch.backends.mps.is_available():
        yield Check(name="device mps", status="ok", detail="available")


def _cuda_device(index: int) -> Check:
    import torch

    name = f"device cuda:{index}"
    try:
        properties = torch.cuda.get_device_properties(index)
        with torch.cuda.device(index):
            bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    except Exception as error:  # a GPU that is lost, or in exclusive use
        detail = " ".join(str(error).split())[:200]
        remedy = f"free or restart that GPU, or train with another device than cuda:{index}"
        return Check(name=name, status="note", detail=detail, remedy=remedy)
    half = "bf16" if bf16 else "fp16 (no bf16: use training.precision=fp16)"
    return Check(name=name, status="ok", detail=f"{properties.name}, {_size(properties.total_memory)}, {half}")


def _cores() -> Iterator[Check]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Check(name="cores", status="ok", detail=f"{usable or 1} usable")


def _memory() -> Iterator[Check]:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        yield Check(name="memory", status="ok", detail="size not known on this system")
        return
    if total >= _LEAST_MEMORY:
        yield Check(name="memory", status="ok", detail=_size(total))
    else:
        remedy = "use a smaller training.micro_batch_size, or a machine with 2 GiB or more"
        yield Check(name="memory", status="note", detail=_size(total), remedy=remedy)


def _runs_folder() -> Iterator[Check]:
    from remask.runs.home import runs_home

    yield _folder("folder runs", runs_home(), variable="REMASK_HOME")


def _cache_folder() -> Iterator[Check]:
    from remask.data.cache import cache_home

    yield _folder("folder cache", cache_home(), variable="REMASK_CACHE")


def _folder(name: str, folder: Path, *, variable: str) -> Check:
    """Whether the folder can be written, and the free space there; it is not created."""
    folder = folder.absolute()
    nearest = next((place for place in (folder, *folder.parents) if place.exists()), folder)
    remedy = f"set {variable} to a folder that can be written"
    try:
        with tempfile.TemporaryFile(dir=nearest) as file:
            file.write(b"remask")
        free = shutil.disk_usage(nearest).free
    except OSError as error:
        detail = f"{folder} cannot be written: {error.strerror}"
        return Check(name=name, status="problem", detail=detail, remedy=remedy)
    state = "" if folder.exists() else ", made when needed"
    detail = f"{folder}{state}, {_size(free)} free"
    if free < _LEAST_DISK:
        remedy = f"free some space there, or set {variable} to a folder on another disk"
        return Check(name=name, status="note", detail=detail, remedy=remedy)
    return Check(name=name, status="ok", detail=detail)


def _size(count: float) -> str:
    return f"{count / 2**30:,.1f} GiB"


_LOOKS: tuple[tuple[str, Callable[[], Iterator[Check]]], ...] = (
    ("python", _python),
    ("packages", _packages),
    ("extras", _extras),
    ("devices", _devices),
    ("cores", _cores),
    ("memory", _memory),
    ("folder runs", _runs_folder),
    ("folder cache", _cache_folder),
)
