"""Keys and values of a pretrained model's places, held in the library's own cache.

The library's `DynamicCache` appends what every call computes. It is made without the model's configuration: with one
it would drop what a sliding window leaves behind, which the masks here still show. After each call it is cut back to
the places that cannot change, by the number of places to drop, which all versions take (a length to keep, only older
ones).
"""

from remask.networks.pages import Past


class PretrainedCache:
    """What was read of B rows.

    Attributes:
        states: the library's cache.
        past: which places it holds.
    """

    def __init__(self) -> None:
        from transformers import DynamicCache

        self.states = DynamicCache()
        self.past = Past()

    def keep(self, past: Past, *, read: int) -> None:
        """Holds the places of `past` alone, once `read` more were computed.

        A backbone that put nothing into the cache, as in training with gradient checkpointing, computes all again.

        Args:
            past: those held so far and the first of the new ones.
            read: places computed in the last call.
        """
        computed = self.past.length + read
        if self.states.get_seq_length() != computed:
            return
        if past.length < computed:
            self.states.crop(past.length - computed)
        self.past = past
