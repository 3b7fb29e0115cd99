"""Sentence tasks: what a model's vectors of sentences are worth, beside rows that need no training of a network.

The names and heads live in `remask.sentences.tasks`, which loads nothing heavy; `remask.sentences.measuring` measures.
"""
