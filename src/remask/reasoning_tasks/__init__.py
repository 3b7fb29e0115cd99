"""Reasoning tasks: questions whose final answers are read out of a response and checked.

The names live in `remask.reasoning_tasks.names`, which loads nothing heavy; `…measuring` asks a model.
"""
