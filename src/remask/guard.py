"""What is done at an alarm: the policies of a recipe, carried out on what the monitor finds."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from torch import nn

from remask.errors import RunError
from remask.health.alarms import Alarm, Kind
from remask.monitor import Monitor, Seen

Action = Callable[[Alarm], bool]
"""What is done at an alarm; says whether this step's update is still to be made."""


class RollBack(Exception):
    """The run is to go on from its last good checkpoint, at a lower rate.

    Attributes:
        alarm: why.
    """

    def __init__(self, alarm: Alarm) -> None:
        super().__init__(str(alarm))
        self.alarm = alarm


def report(alarm: Alarm) -> bool:
    """The alarm is recorded and printed; training goes on."""
    del alarm
    return True


def skip(alarm: Alarm) -> bool:
    """The weights stay as they are at this step."""
    del alarm
    return False


def stop(alarm: Alarm) -> bool:
    """The run ends.

    Raises:
        RunError: always, with the alarm's one line.
    """
    raise RunError(f"{alarm}. The last checkpoint is untouched")


def roll_back(alarm: Alarm) -> bool:
    """The run goes back to its last checkpoint.

    Raises:
        RollBack: always.
    """
    raise RollBack(alarm)


@dataclass
class Guarded:
    """A monitor and what is done at each kind of its alarms (a `remask.training.Guard`).

    Attributes:
        monitor: finds what is wrong.
        actions: kind of alarm → what is done.
        tell: is handed every alarm that is new, before anything is done about it.
    """

    monitor: Monitor
    actions: Mapping[str, Action]
    tell: Callable[[Alarm], None] = field(default=lambda alarm: None)

    def before_update(self, seen: Seen) -> bool:
        """Whether the update is to be made; see `remask.training.Guard`."""
        return self._act(self.monitor.before_update(seen))

    def after_update(self, step: int) -> None:
        """Looks at what the update changed."""
        self._act(self.monitor.after_update(step))

    def before_checkpoint(self, step: int) -> bool:
        """Whether the weights are worth keeping.

        Raises:
            RunError: the run must stop.
            RollBack: the run must go back.
        """
        return self._act(self.monitor.before_checkpoint(step))

    def at_record(self, record: Mapping[str, Any]) -> None:
        """Looks at a line of the record.

        Raises:
            RunError: the run must stop.
        """
        self._act(self.monitor.at_record(record))

    def _act(self, alarms: Sequence[Alarm]) -> bool:
        for alarm in alarms:
            if not alarm.repeated:
                self.tell(alarm)
        kept = [self.actions[alarm.kind](alarm) for alarm in alarms]
        return all(kept)


def cautious(network: nn.Module, *, steps: int) -> Guarded:
    """A guard for a loop of one's own: stops where numbers break or nothing is trained, and lets the rest pass.

    Args:
        network: unwrapped.
        steps: optimiser steps of the run.
    """
    monitor = Monitor(network, trivial={}, explosion_factor=math.inf, steps=steps)
    return Guarded(monitor, {**dict.fromkeys(get_args(Kind), report), "non_finite": stop, "dead": stop})
