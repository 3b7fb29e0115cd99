"""Who may import whom (docs/architecture.md), read from the syntax trees of src/remask."""

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src"

TEXT = {"errors", "tokenizers", "data"}
NOISE = {*TEXT, "randomness", "schedules", "processes", "gaussian", "deletion", "orders"}
MODEL = {*NOISE, "objectives", "model", "continuation"}
SAMPLING = {*MODEL, "samplers", "generation"}
TRAINING = {*TEXT, "randomness", "objectives", "optimisation", "training", "checkpoints", "parallel", "sharding"}
TRAINING |= {"muon", "tensor_files", "monitor", "guard", "health"}
RECORDS = {"errors", "runs", "evaluation.measurement"}
ALLOWED: Mapping[str, set[str]] = {
    "": set(),
    "errors": set(),
    "machine": set(),
    "interruption": set(),
    "evaluation.measurement": set(),
    "health": {"errors", "evaluation.measurement"},
    "networks": set(),
    "backbones": {"errors", "networks"},
    "parallel": {"errors"},
    "sharding": {"parallel"},
    "tensor_files": {"sharding"},
    "muon": {"sharding"},
    "optimisation": {"muon", "sharding"},
    "monitor": {"health", "sharding"},
    "guard": {"errors", "health", "monitor"},
    "window": {"training"},
    "book": {*RECORDS, "sinks", "drawing"},
    "tokenizers": {"errors"},
    "data": TEXT,
    "randomness": {"data"},
    "schedules": {"data", "randomness"},
    "processes": {"data", "randomness", "schedules"},
    "gaussian": {"data", "randomness", "schedules"},
    "deletion": {"data"},
    "orders": {"randomness"},
    "objectives": NOISE,
    "samplers": NOISE,
    "continuation": {*TEXT, "processes", "objectives"},
    "model": MODEL,
    "generation": SAMPLING,
    "imagination": {*SAMPLING, "continuation"},
    "reasoning": SAMPLING,
    "flops": {*MODEL, "networks"},
    "training": TRAINING,
    "checkpoints": TRAINING,
    "evaluation": {*NOISE, "objectives", "samplers", "evaluation.measurement"},
    "runs": RECORDS,
    "report": {*RECORDS, "health"},
    "sinks": RECORDS,
    "comparison": {*RECORDS, "health"},
    "logbook": {*RECORDS, "comparison", "health"},
    "slurm": {"errors"},
    "recipes": {"errors"},
    "config.schema": set(),
    "config": {
        *SAMPLING,
        *TRAINING,
        "imagination",
        "reasoning",
        "backbones",
        "networks",
        "recipes",
        "sinks",
        "config.schema",
    },
    "experiment": {"*"},
    "drawing": {"*"},
    "materials": {"*"},
    "codecs": {"*"},
    "trainer": {"*"},
    "judgement": {"*"},
    "laboratory": {"*"},
    "finished": {"*"},
    "bijections": {"*"},
    "hub": {"*"},
    "harness": {"*"},
    "sentences": {"*"},
    "reasoning_tasks": {"*"},
    "cli": {"*"},
    "__main__": {"cli"},
}
"""Longest prefix of a module's name within remask → what it may import besides its own kind; * is all but the cli."""
BELOW_THE_CLI = {
    "experiment",
    "drawing",
    "codecs",
    "materials",
    "trainer",
    "judgement",
    "finished",
    "bijections",
    "hub",
    "harness",
    "laboratory",
    "sentences",
    "reasoning_tasks",
}


def sources() -> dict[str, str]:
    """Module name → source text."""
    names = {}
    for path in sorted((SOURCE / "remask").rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        names[".".join(parts).removesuffix(".__init__")] = path.read_text(encoding="utf-8")
    return names


def unit(module: str) -> str:
    """The entry of `ALLOWED` that a module of remask falls under."""
    inside = module.removeprefix("remask").removeprefix(".")
    while inside and inside not in ALLOWED:
        inside = inside.rpartition(".")[0]
    return inside if inside in ALLOWED and (inside or module == "remask") else f"unknown: {module}"


def is_for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def import_nodes(tree: ast.AST, *, late: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements outside `if TYPE_CHECKING`; those inside functions only where `late`."""
    for node in ast.iter_child_nodes(tree):
        if is_for_type_checkers(node):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif late or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from import_nodes(node, late=late)


@cache
def nodes_of(source: str, *, late: bool) -> tuple[ast.Import | ast.ImportFrom, ...]:
    return tuple(import_nodes(ast.parse(source), late=late))


def imports(files: Mapping[str, str], module: str, *, late: bool = True) -> set[str]:
    """Names that a module imports: modules of `files` as far down as they go, others by their full name."""
    found = set()
    packages = {name.rpartition(".")[0] for name in files}
    for node in nodes_of(files[module], late=late):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
            continue
        base = node.module or ""
        if node.level:
            start = module.split(".") if module in packages else module.split(".")[:-1]
            base = ".".join([*start[: len(start) - node.level + 1], *filter(None, [node.module])])
        found |= {name if (name := f"{base}.{alias.name}") in files else base for alias in node.names}
    return found - {module}


def is_ours(module: str) -> bool:
    return module == "remask" or module.startswith("remask.")


def violations(files: Mapping[str, str]) -> list[str]:
    """`importer → imported` for each arrow against the direction."""
    wrong = []
    for module in files:
        own = unit(module)
        if own.startswith("unknown"):
            wrong.append(f"{module} has no place in ALLOWED")
            continue
        for imported in sorted(filter(is_ours, imports(files, module))):
            target = unit(imported)
            allowed = ALLOWED[own] | {own}
            everything = "*" in allowed and (target != "cli" or own == "cli")
            # the root package holds the version alone
            if not (everything or target in allowed or target == "" or target.split(".")[0] in allowed):
                wrong.append(f"{module} → {imported}")
    return wrong


def cycles(files: Mapping[str, str]) -> list[list[str]]:
    """Groups of modules that import each other, late imports included (strongly connected components)."""
    graph = {module: {name for name in imports(files, module) if name in files} for module in files}

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for name in graph[waiting.pop()] - seen:
                seen.add(name)
                waiting.append(name)
        return seen

    reach = {module: reachable(module) for module in graph}
    groups = {frozenset({m, *(o for o in reach[m] if m in reach[o])}) for m in graph if m in reach[m]}
    return sorted(sorted(group) for group in groups)


def loaded_with(files: Mapping[str, str], start: str) -> set[str]:
    """Top names of the other packages that importing `start` imports, through remask's modules and their packages."""
    seen, outside, waiting = set(), set(), [start]
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        if module not in files:
            outside.add(module.split(".")[0])
            continue
        parts = module.split(".")
        waiting += [".".join(parts[:k]) for k in range(1, len(parts))]
        waiting += imports(files, module, late=False)
    return outside


def test_every_import_follows_the_direction():
    assert violations(sources()) == []


def test_no_modules_import_each_other_in_a_circle():
    assert cycles(sources()) == []


HEAVY = {"torch", "transformers", "numpy", "accelerate", "datasets", "matplotlib", "safetensors", "tokenizers"}
HEAVY |= {"scipy", "sklearn", "pandas"}


@pytest.mark.parametrize(
    "module",
    [
        "remask",
        "remask.cli",
        "remask.cli.runs",
        "remask.cli.show",
        "remask.cli.remove",
        "remask.cli.imports",
        "remask.cli.recipes",
        "remask.cli.log",
        "remask.comparison",
        "remask.logbook",
        "remask.errors",
        "remask.evaluation.measurement",
        "remask.config.schema",
        "remask.config.load",
        "remask.runs",
        "remask.recipes",
        "remask.health",
    ],
)
def test_what_answers_at_once_loads_nothing_heavy(module):
    assert loaded_with(sources(), module) & HEAVY == set()


def test_networks_need_torch_and_nothing_else_but_transformers_where_they_adapt_its_models():
    files = sources()
    plain = {"torch", "jaxtyping", "math", "collections", "contextlib", "dataclasses", "functools", "itertools"}
    plain |= {"typing"}
    for module in files:
        if unit(module) == "networks":
            outside = {name.split(".")[0] for name in imports(files, module) if not is_ours(name)}
            adapts = module.startswith("remask.networks.pretrained")
            assert outside <= plain | ({"transformers"} if adapts else set()), module


# ── the test can fail ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("module", "line", "arrow"),
    [
        ("remask.samplers.base", "from remask.networks import Transformer", "remask.samplers.base → remask.networks"),
        (
            "remask.samplers.base",
            "from remask.objectives.base import Loss",
            "remask.samplers.base → remask.objectives.base",
        ),
        ("remask.objectives.base", "import remask.samplers.base", "remask.objectives.base → remask.samplers.base"),
        ("remask.networks.segments", "from remask import schedules", "remask.networks.segments → remask.schedules"),
        (
            "remask.schedules",
            "def f():\n    from remask.processes import Masking",
            "remask.schedules → remask.processes",
        ),
        ("remask.runs.home", "from ..training import Step", "remask.runs.home → remask.training"),
        ("remask.health.judging", "import remask.model", "remask.health.judging → remask.model"),
        ("remask.experiment", "from remask.cli import main", "remask.experiment → remask.cli"),
        ("remask.errors", "from remask.data.batch import Batch", "remask.errors → remask.data.batch"),
        ("remask.config.schema", "from remask.errors import UserError", "remask.config.schema → remask.errors"),
    ],
)
def test_an_arrow_against_the_direction_is_found(module, line, arrow):
    files = sources()
    files[module] += f"\n{line}\n"
    assert violations(files) == [arrow]


def test_a_module_without_a_place_is_found():
    assert violations({**sources(), "remask.novelty": ""}) == ["remask.novelty has no place in ALLOWED"]


def test_a_circle_through_a_late_import_is_found_and_one_for_type_checkers_is_none():
    files = {
        "remask.a": "from remask import b",
        "remask.b": "def f():\n    from remask.c import g",
        "remask.c": "import remask.a",
        "remask.d": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from remask.e import T",
        "remask.e": "from remask.d import S",
    }
    assert cycles(files) == [["remask.a", "remask.b", "remask.c"]]


def test_a_heavy_import_behind_others_is_found():
    files = sources()
    files["remask.runs.home"] += "\nfrom remask.data.batch import Batch\n"
    assert "torch" in loaded_with(files, "remask.runs")
    files = sources()
    files["remask.runs.home"] += "\ndef later():\n    import torch\n"
    assert "torch" not in loaded_with(files, "remask.runs")
