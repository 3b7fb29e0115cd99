"""remask: train, sample, evaluate and compare diffusion language models."""

__version__ = "0.1.0"
