"""The kinds of study: where each gets its trials from, and what it concludes from them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from remask.config.load import load_recipe
from remask.errors import UserError
from remask.laboratory import experts
from remask.laboratory.ablations import conclude_arms, conclude_size
from remask.laboratory.conducting import Conductor, Interrupt, Say, Searching
from remask.laboratory.jobs import Runner
from remask.laboratory.matching import Matching, conclude_matched
from remask.laboratory.planned import Planned
from remask.laboratory.results import kept_runs
from remask.laboratory.search import Search
from remask.laboratory.space import check, from_json, refuse_missing_texts
from remask.laboratory.study import ENDED, Study
from remask.laboratory.sweeps import conclude_sweep
from remask.runs import Registry, timestamp


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What sets a kind of study apart.

    Attributes:
        searching: where its trials come from.
        conclude: ended trials → facts of study.json: says, best, importances, comparison, matched.
    """

    searching: Callable[[Study], Searching]
    conclude: Callable[[Study, Registry], Mapping[str, Any]]


KINDS: Mapping[str, Kind] = {
    "sweep": Kind(searching=Search, conclude=conclude_sweep),
    "component": Kind(searching=Planned, conclude=conclude_arms),
    "size": Kind(searching=Planned, conclude=conclude_size),
    experts.KIND: Kind(searching=Planned, conclude=conclude_size),
    "matched": Kind(searching=Matching, conclude=conclude_matched),
}


def try_again(study: Study, registry: Registry) -> int:
    """Has failed trials tried again when the study is carried out next: from their checkpoints, if they have any.

    What a sweep draws next does not depend on how they end then: Optuna has them as failed.

    Args:
        study: of any kind.
        registry: of the home of runs.

    Returns:
        How many there are.

    Raises:
        UserError: another process conducts it.
    """
    with study.lock():
        study.read()
        failed = [trial for trial in study.trials if trial.state == "failed"]
        kept = kept_runs(registry, failed)
        for trial in failed:
            run = trial.run if trial.run in kept else None
            if run is None:
                (study.folder_of(trial) / "run").unlink(missing_ok=True)  # it names a run that was removed
            elif kept[run].status == "failed":
                registry.update(run, status="interrupted")
            study.change_trial(trial.number, state="running", error=None, run=run)
        if failed:
            study.change(status="interrupted", finished=None)
    return len(failed)


def carry_out(study: Study, *, registry: Registry, runner: Runner, interrupt: Interrupt, say: Say) -> bool:
    """Conducts a study from where it is, and keeps what it concludes.

    Args:
        study: of any kind.
        registry: of the home of runs.
        runner: carries jobs out.
        interrupt: whether the user wants to stop.
        say: told what happens.

    Returns:
        Whether it came to its end; False where the user interrupted it.

    Raises:
        UserError: another process conducts it.
    """
    kind, jobs = KINDS[study.facts["kind"]], study.facts["jobs"]
    with study.lock():
        study.read()  # another controller may have gone on with it until now
        study.change(status="running", finished=None, jobs=jobs)
        conductor = Conductor(
            study,
            registry=registry,
            runner=runner,
            searching=kind.searching(study),
            at_once=int(study.facts["jobs"]),
            evaluating=tuple(study.facts["evaluate"]),
            say=say,
        )
        done = False
        try:
            done = conductor.conduct(interrupt)
        finally:
            if not done:
                study.change(status="interrupted")
        if done:
            study.change(**kind.conclude(study, registry), status="finished", finished=timestamp())
        return done


def refuse_gone(study: Study) -> None:
    """Looks whether all that the trainings to come read is there still: one that fails has failed for good.

    Raises:
        UserError: a text or a recipe is not.
    """
    try:
        for trial in study.trials:
            if trial.state not in ENDED:
                refuse_missing_texts(load_recipe(str(study.path / trial.recipe), trial.overrides))
        if len(study.trials) < int(study.facts.get("trials_planned", 0)):
            check(str(study.path / "recipe.yaml"), study.facts["overrides"], list(map(from_json, study.facts["over"])))
    except UserError as error:
        line = str(error).splitlines()[0]
        raise UserError(f"{line.rstrip('.')}. A study reads paths from the folder that it is resumed in") from None


def remaining(study: Study) -> int:
    """How many of its trials have not ended yet; of a sweep, those too that are not drawn."""
    ended = sum(trial.state in ENDED for trial in study.trials)
    return max(int(study.facts.get("trials_planned", 0)), len(study.trials)) - ended
