"""A home, a text and a cache for commands, and trained runs that tests share."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command import BYTES, QUESTIONS, succeeds, write_text


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("text") / "text.txt")


@pytest.fixture
def home(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home of runs, beside the working folder."""
    home = tmp_path / "runs"
    monkeypatch.setenv("REMASK_HOME", str(home))
    monkeypatch.setenv("REMASK_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    return home


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, cache: Path, text: Path) -> Callable[[str], Path]:
    """A home with one finished run of a recipe on text, or of a thought, trained when first asked for."""
    homes: dict[str, Path] = {}

    def train(recipe: str) -> Path:
        if recipe not in homes:
            small = QUESTIONS if recipe.startswith("thought-") else [*BYTES, f"data.source={text}"]
            homes[recipe] = tmp_path_factory.mktemp("finished") / "runs"
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("REMASK_HOME", str(homes[recipe]))
                patch.setenv("REMASK_CACHE", str(cache))
                succeeds("train", recipe, *small)
        return homes[recipe]

    return train


@pytest.fixture
def trained(home: Path, finished: Callable[[str], Path]) -> Path:
    """A home of this test's own with a finished masked diffusion run."""
    shutil.copytree(finished("mdlm-file"), home)
    return home


@pytest.fixture
def thought(home: Path, finished: Callable[[str], Path]) -> Callable[[str], Path]:
    """A home of this test's own with a finished run of a recipe of thoughts."""
    return lambda recipe: shutil.copytree(finished(recipe), home)


@pytest.fixture
def trained_ar(home: Path, finished: Callable[[str], Path]) -> Path:
    """A home of this test's own with a finished autoregressive run."""
    shutil.copytree(finished("ar-file"), home)
    return home
