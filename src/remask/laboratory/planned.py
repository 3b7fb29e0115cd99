"""Trials that are all known from the start."""

from remask.laboratory.study import Study, Trial


class Planned:
    """The waiting trials of a study in order; nothing is learned from how they go.

    Args:
        study: with its trials.
    """

    def __init__(self, study: Study) -> None:
        self._study = study

    def following(self) -> Trial | None:
        """The first that waits."""
        return next((trial for trial in self._study.trials if trial.state == "waiting"), None)

    def reported(self, trial: Trial, step: int, value: float) -> bool:
        """No trial is given up."""
        del trial, step, value
        return False

    def told(self, trial: Trial) -> None:
        """Nobody to tell."""
