"""The master experiment log: what the records say of all runs and evaluations, as Markdown."""

from remask.logbook.book import Log, gather_log
from remask.logbook.choosing import Choice
from remask.logbook.page import log_page

__all__ = ["Choice", "Log", "gather_log", "log_page"]
