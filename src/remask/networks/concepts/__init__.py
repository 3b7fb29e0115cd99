"""Networks with a bottleneck of concept vectors: encoders, decoders, and the two together."""

from remask.networks.concepts.network import ConceptNetwork
from remask.networks.concepts.vectors import Concepts

__all__ = ["ConceptNetwork", "Concepts"]
