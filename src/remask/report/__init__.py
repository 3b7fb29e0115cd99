"""A run, a comparison or a study as one HTML file: what was learned, how sure that is, what it cost, whence it came.

Needs neither torch nor a network: it reads the folders of runs and what is handed to it, and nothing else.
"""

from remask.report.comparison_page import render_comparison, write_comparison
from remask.report.page import render_report, write_report
from remask.report.reading import RunFacts, holds_run, read_run
from remask.report.study_page import render_study, write_study

__all__ = [
    "RunFacts",
    "holds_run",
    "read_run",
    "render_comparison",
    "render_report",
    "render_study",
    "write_comparison",
    "write_report",
    "write_study",
]
