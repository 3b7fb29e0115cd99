"""The names of the reasoning tasks; importing this loads nothing heavy."""

REASONING_TASKS = (
    *("gsm8k", "gsm8k_eq"),
    *("arithmetic", "arithmetic3", "arithmetic4"),
    *("countdown", "countdown3", "countdown4"),
    *("multiplication", "multiplication3x3", "multiplication4x4", "multiplication5x5"),
    *("sudoku4", "sudoku9"),
)
"""Of `remask evaluate --task`."""
