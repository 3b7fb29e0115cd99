"""The fair comparison: which figures are the same quantity, how sure their difference is, and what is not fair of it.

From records alone: nothing here knows of models, and scipy is imported where it is used.
"""

from remask.comparison.comparable import Difference, Figure, differences, groups
from remask.comparison.comparing import Compared, Comparison, compare_runs, refuse_unfair
from remask.comparison.directions import Better, better

__all__ = [
    "Better",
    "Compared",
    "Comparison",
    "Difference",
    "Figure",
    "better",
    "compare_runs",
    "differences",
    "groups",
    "refuse_unfair",
]
