"""A run's report as one HTML file: what it learned, how it denoises, what it wrote, what it cost.

Needs neither torch nor a network: it reads the run's folder and nothing else.
"""

from remask.report.page import render_report, write_report
from remask.report.reading import RunFacts, holds_run, read_run

__all__ = ["RunFacts", "holds_run", "read_run", "render_report", "write_report"]
