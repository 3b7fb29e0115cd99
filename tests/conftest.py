"""Shared fixtures, and jaxtyping's import hook: every annotated shape of remask is checked while tests run."""

import gc
import os
import sys

# compiled modules are kept, also where the environment says otherwise: tests start some fifty processes, and the hook
# below takes five seconds to rewrite remask
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# one thread a process: the matrices are tiny, and pytest-xdist already fills the cores; read when numpy and torch load
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import jaxtyping  # noqa: E402

import typecheck  # noqa: E402

# before any import of remask: only modules imported from here on are checked
jaxtyping.install_import_hook("remask", "typecheck.checked")
jaxtyping.jaxtyped = typecheck.jaxtyped

from typing import TYPE_CHECKING  # noqa: E402

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

if TYPE_CHECKING:
    import torch

# no deadline, because the machine may be shared; the same examples every time, so that a failure is seen again
settings.register_profile("reproducible", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("reproducible")


def pytest_collection_finish() -> None:
    """Thousands of tests and all of torch stay to the end: looking for garbage among them took a sixth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


@pytest.fixture
def generator() -> "torch.Generator":
    """A generator with a fixed seed."""
    import torch

    return torch.Generator().manual_seed(20260101)


@pytest.fixture
def global_generator_untouched():
    """Fails a test in which something draws from torch's global generator."""
    import torch

    before = torch.random.get_rng_state()
    yield
    unmoved = bool((before == torch.random.get_rng_state()).all())
    assert unmoved, "something drew from torch's global generator"
