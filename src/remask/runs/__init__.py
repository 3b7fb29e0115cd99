"""Where runs live: their folders on disk and the registry that lists, finds and compares them.

Nothing here knows of models or tensors, and nothing imports torch, numpy or the model side.
"""

from remask.runs.evaluation_record import EvaluationRecord
from remask.runs.evaluations import OpenEvaluation
from remask.runs.files import json_line, read_json_lines, write_atomic
from remask.runs.folder import RunFolder
from remask.runs.home import make_run_id, runs_home, timestamp
from remask.runs.importing import TakenIn
from remask.runs.provenance import Provenance, collect_provenance
from remask.runs.record import STATUSES, RunRecord, Status
from remask.runs.registry import Rebuilt, Registry

__all__ = [
    "STATUSES",
    "EvaluationRecord",
    "OpenEvaluation",
    "Provenance",
    "Rebuilt",
    "Registry",
    "RunFolder",
    "RunRecord",
    "Status",
    "TakenIn",
    "collect_provenance",
    "json_line",
    "make_run_id",
    "read_json_lines",
    "runs_home",
    "timestamp",
    "write_atomic",
]
