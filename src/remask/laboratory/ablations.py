"""Ablations: a recipe with and without a change, and a recipe at several sizes, each repeated over seeds."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from remask.config.schema import Recipe
from remask.errors import UserError
from remask.laboratory.results import kept_runs
from remask.laboratory.space import Choice, combinations
from remask.laboratory.study import Metric, Study, Trial, new_facts
from remask.runs import Registry

LIKELIHOOD = Metric(name="bits_per_byte", task="likelihood", better="lower", unit="bits/byte")
"""What arms are usually compared by: the likelihood on held-out text, example by example."""
AS_IT_IS = "as it is"


def new_component(
    home: Path,
    name: str,
    *,
    recipe: Recipe,
    source: str,
    both: Sequence[str],
    changes: Sequence[str],
    seeds: Sequence[int],
    metric: Metric = LIKELIHOOD,
    **more: Any,
) -> Study:
    """Makes the folder of a recipe with and without changes.

    Args:
        home: of runs.
        name: of the study.
        recipe: as it is.
        source: its YAML text.
        both: KEY=VALUE in both arms.
        changes: KEY=VALUE of the component.
        seeds: each arm is trained with each of them.
        metric: what the arms are compared by.
        **more: further facts.

    Raises:
        UserError: the name is taken.
    """
    words = " ".join(changes)
    facts = new_facts(
        kind="component",
        title=f"{recipe.name} with and without {words}",
        recipe=recipe.name,
        metric=metric,
        changes=list(changes),
        **more,
    )
    arms = {AS_IT_IS: list(both), words: [*both, *changes, f"name={arm_name(recipe.name, changes)}"]}
    trials = repeated(arms, values={AS_IT_IS: {}, words: _values(changes)}, seeds=seeds)
    return Study.create(home, name, recipes={"recipe.yaml": source}, trials=trials, **facts)


def new_size(
    home: Path,
    name: str,
    *,
    recipe: Recipe,
    source: str,
    overrides: Sequence[str],
    over: Sequence[Choice],
    seeds: Sequence[int],
    metric: Metric = LIKELIHOOD,
    **more: Any,
) -> Study:
    """Makes the folder of a recipe at several sizes.

    Args:
        home: of runs.
        name: of the study.
        recipe: as it is.
        source: its YAML text.
        overrides: KEY=VALUE in all arms.
        over: keys and the sizes they take.
        seeds: each size is trained with each of them.
        metric: what the sizes are compared by.
        **more: further facts.

    Raises:
        UserError: the name is taken.
    """
    facts = new_facts(
        kind="size",
        title=f"size of {recipe.name} over {', '.join(each.key for each in over)}",
        recipe=recipe.name,
        metric=metric,
        **{"over": [each.to_json() for each in over]},
        **more,
    )
    arms, values = {}, {}
    for combination in combinations(over):
        changes = [f"{key}={value}" for key, value in combination.items()]
        arm = " ".join(changes)
        arms[arm] = [*overrides, *changes, f"name={arm_name(recipe.name, changes)}"]
        values[arm] = combination
    trials = repeated(arms, values=values, seeds=seeds)
    return Study.create(home, name, recipes={"recipe.yaml": source}, trials=trials, **facts)


def arm_name(recipe: str, changes: Sequence[str]) -> str:
    """The recipe's name with what is changed behind it, as a recipe may be named: `mdlm-width-128`."""
    words = [recipe]
    for change in changes:
        key, _, value = change.partition("=")
        words += [key.rpartition(".")[2], value]
    return re.sub(r"[^A-Za-z0-9._]+", "-", "-".join(words)).strip("-")[:64]


def read_seeds(text: str) -> list[int]:
    """`0,1,2` as numbers.

    Raises:
        UserError: something else is given, or a seed twice.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(re.fullmatch(r"[0-9]{1,18}", word) for word in words):
        raise UserError(f"--seeds {text}: give whole numbers from 0 with commas between them, as 0,1,2")
    seeds = [int(word) for word in words]
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds {text}: a seed is given twice, and would train the same model again")
    return seeds


def conclude_arms(study: Study, registry: Registry) -> dict[str, Any]:
    """With against without, over seeds."""
    comparison, said = compared(study, registry)
    worth = _worth(study, comparison)
    seeds = {trial.seed for trial in study.trials}
    few = ["one seed says nothing of chance in training: give --seeds 0,1,2"] if len(seeds) == 1 else []
    return {"comparison": comparison, "says": [*worth, *said, *few, *failures(study)], "best": None}


def conclude_size(study: Study, registry: Registry) -> dict[str, Any]:
    """The arms in a comparison, and the best of them."""
    comparison, said = compared(study, registry)
    return {"comparison": comparison, "says": [*said, *failures(study)], "best": None}


def compared(study: Study, registry: Registry) -> tuple[dict[str, Any] | None, list[str]]:
    """The finished runs in a fair comparison, and its verdict and flags in words."""
    from remask.comparison import compare_runs

    finished = [each for each in study.trials if each.state == "finished" and not each.calibration]
    records = list(kept_runs(registry, finished).values())
    names = {str(trial.run): trial.arm for trial in finished}
    metric = study.metric
    try:
        found = compare_runs(registry, records, metrics=[metric.name], tasks=[metric.task or ""], names=names).to_json()
    except UserError as error:
        return None, [str(error)]
    return found, [found["verdict"], *found["flags"]]


def failures(study: Study) -> list[str]:
    """A sentence for each trial that failed."""
    failed = [trial for trial in study.trials if trial.state == "failed"]
    return [f"trial {trial.number} ({trial.arm}, seed {trial.seed}) failed: {trial.error}" for trial in failed]


def _worth(study: Study, comparison: Mapping[str, Any] | None) -> list[str]:
    """What the changes are worth in the metric, in one sentence."""
    metric, words = study.metric, " ".join(study.facts["changes"])
    figures = [] if comparison is None else comparison["figures"]
    if not figures or not figures[0]["differences"]:
        return []
    difference = figures[0]["differences"][0]
    sign = 1 if difference["arm"] == words else -1
    # both arms were trained with each seed, and so on the same text in the same order: that was known before
    told = difference["paired_by_seed"] or difference
    by = sign * told["difference"]
    said = f"{words} changes {metric.name} by {by:+.4f} {metric.unit}"
    if not told["interval"]:
        return [said]
    low, high = sorted(sign * end for end in told["interval"])
    level, better = 100 * (comparison or {})["level"], (by < 0) == (metric.better == "lower")
    worth = "no worth can be told from chance" if low <= 0 <= high else f"{'better' if better else 'worse'} with it"
    return [f"{said} ({level:.4g} % interval {low:+.4f} to {high:+.4f}, {told['method']}, {told['covers']}): {worth}"]


def repeated(
    arms: Mapping[str, Sequence[str]], *, values: Mapping[str, Mapping[str, Any]], seeds: Sequence[int]
) -> list[Trial]:
    """Every arm with every seed; seed by seed, so that a drift of the machine's speed meets all arms."""
    pairs = [(seed, arm) for seed in seeds for arm in arms]
    return [
        Trial(
            number=number,
            arm=arm,
            recipe="recipe.yaml",
            overrides=(*arms[arm], f"seed={seed}"),
            values=values[arm],
            seed=seed,
        )
        for number, (seed, arm) in enumerate(pairs)
    ]


def _values(changes: Sequence[str]) -> dict[str, str]:
    return {key: value for key, _, value in (change.partition("=") for change in changes)}
