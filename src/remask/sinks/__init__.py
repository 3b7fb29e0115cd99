"""Trackers of experiments (W&B, Trackio, TensorBoard) that are fed the lines of metrics.jsonl.

metrics.jsonl is the truth. A sink is opened with the lines that it already holds and makes the tracker hold exactly
those, whatever a crash left there; then it gets each new line. Nothing here imports a tracker before it is used.
"""

from remask.sinks.base import Entry, Guarded, Naming, Sink
from remask.sinks.tensorboard import TensorBoard
from remask.sinks.trackio import Trackio
from remask.sinks.wandb import WeightsAndBiases

__all__ = ["Entry", "Guarded", "Naming", "Sink", "TensorBoard", "Trackio", "WeightsAndBiases"]
