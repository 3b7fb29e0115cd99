"""The splits of sentence tasks out of Hugging Face datasets."""

from remask.data.hub import own_splits
from remask.sentences.tables import Row, labelled
from remask.sentences.tasks import SPLIT_FILES, SentenceTask


def hub_splits(task: SentenceTask) -> dict[str, tuple[str, list[Row]]]:
    """The splits of a task's dataset, labelled ones alone.

    Raises:
        UserError: the extra `datasets` is missing, the dataset cannot be reached, or lacks a column.
    """
    place = task.hub
    there = own_splits(place.dataset, config=place.config, streaming=False, revision=place.revision)
    found = {}
    for split, names in SPLIT_FILES.items():
        own = next((name for name in names if name in there), None)
        if own is None:
            continue
        where = f"{place.dataset}, {place.config or 'default'}, split {own}"
        rows = list(labelled(((f"{where}, row {number}", row) for number, row in enumerate(there[own])), task))
        if rows:
            found[split] = (own, rows)
    return found
