"""Keys and values of places that were read before, so that reading on does not compute them again.

Shape letters: B rows, H heads, E head width, P places in the cache, K new places.
"""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

Attach = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(keys, values) [B H K E] of a row's last K places → those of all places that they may attend to [B H N E]."""


def alone(
    keys: Float[Tensor, "B H K E"], values: Float[Tensor, "B H K E"]
) -> tuple[Float[Tensor, "B H K E"], Float[Tensor, "B H K E"]]:
    """What a place attends to when nothing was read before: the keys and values given."""
    return keys, values


class LayerCache:
    """One attention layer's keys and values.

    Args:
        capacity: the most places of a row.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self._store: tuple[Tensor, Tensor] | None = None

    def attach(
        self, keys: Float[Tensor, "B H K E"], values: Float[Tensor, "B H K E"]
    ) -> tuple[Float[Tensor, "B H N E"], Float[Tensor, "B H N E"]]:
        """The P places kept so far followed by K new ones, N = P + K, as views that the next call overwrites.

        The new ones are forgotten unless `length` is raised over them.
        """
        if self._store is None:
            # the first call knows the shape, the device and the dtype, which autocast may change
            batch, heads, _, width = keys.shape
            shape = (batch, heads, self.capacity, width)
            self._store = keys.new_empty(shape), values.new_empty(shape)
        end = self.length + keys.shape[2]
        for store, new in zip(self._store, (keys, values), strict=True):
            store[:, :, self.length : end] = new
        return self._store[0][:, :, :end], self._store[1][:, :, :end]


class KeyValueCache:
    """All layers' keys and values of the first places of B rows.

    Args:
        layers: attention layers.
        capacity: the most places of a row.
    """

    def __init__(self, layers: int, capacity: int) -> None:
        self.layers = [LayerCache(capacity) for _ in range(layers)]

    @property
    def length(self) -> int:
        """P, the places kept."""
        return self.layers[0].length

    def keep(self, length: int) -> None:
        """Counts the first `length` places as read; later ones are computed again when they are needed."""
        for layer in self.layers:
            layer.length = length
