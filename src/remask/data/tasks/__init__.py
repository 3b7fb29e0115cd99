"""Tasks that every machine can make: prompts whose answers are checked exactly."""

from remask.data.tasks.arithmetic import ARITHMETIC, ARITHMETIC3, ARITHMETIC4
from remask.data.tasks.base import Checker, Task, task_readers
from remask.data.tasks.countdown import COUNTDOWN
from remask.data.tasks.long_multiplication import MULTIPLICATION3X3, MULTIPLICATION4X4, MULTIPLICATION5X5
from remask.data.tasks.multiplication import MULTIPLICATION
from remask.data.tasks.sudoku import SUDOKU4

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        *(ARITHMETIC, ARITHMETIC3, ARITHMETIC4),
        *(MULTIPLICATION, MULTIPLICATION3X3, MULTIPLICATION4X4, MULTIPLICATION5X5),
        *(COUNTDOWN, SUDOKU4),
    )
}

__all__ = [
    "ARITHMETIC",
    "ARITHMETIC3",
    "ARITHMETIC4",
    "COUNTDOWN",
    "MULTIPLICATION",
    "MULTIPLICATION3X3",
    "MULTIPLICATION4X4",
    "MULTIPLICATION5X5",
    "SUDOKU4",
    "TASKS",
    "Checker",
    "Task",
    "task_readers",
]
