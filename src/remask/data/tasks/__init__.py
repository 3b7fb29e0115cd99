"""Tasks that every machine can make: prompts whose answers are checked exactly."""

from remask.data.tasks.arithmetic import ARITHMETIC, ARITHMETIC3, ARITHMETIC4
from remask.data.tasks.base import Checker, Task, task_readers
from remask.data.tasks.countdown import COUNTDOWN
from remask.data.tasks.multiplication import MULTIPLICATION
from remask.data.tasks.sudoku import SUDOKU4

TASKS: dict[str, Task] = {
    task.name: task for task in (ARITHMETIC, ARITHMETIC3, ARITHMETIC4, COUNTDOWN, MULTIPLICATION, SUDOKU4)
}

__all__ = [
    "ARITHMETIC",
    "ARITHMETIC3",
    "ARITHMETIC4",
    "COUNTDOWN",
    "MULTIPLICATION",
    "SUDOKU4",
    "TASKS",
    "Checker",
    "Task",
    "task_readers",
]
