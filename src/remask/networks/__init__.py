"""What predicts: networks that emit leave-one-out logits."""

from remask.networks.transformer import BIDIRECTIONAL, CAUSAL, Direction, Transformer, block_causal

__all__ = ["BIDIRECTIONAL", "CAUSAL", "Direction", "Transformer", "block_causal"]
