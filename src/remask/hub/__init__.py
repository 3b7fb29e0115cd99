"""Whole models for transformers: `import remask.hub`, then AutoConfig and AutoModel know the model type `remask`."""

from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

from remask.hub.configuration import RemaskConfig
from remask.hub.diffusion import RemaskForDiffusion, export
from remask.hub.tokenizer import transformers_tokenizer

# twice is no mistake: a reloaded module registers its new classes
AutoConfig.register(RemaskConfig.model_type, RemaskConfig, exist_ok=True)
for auto in (AutoModel, AutoModelForMaskedLM):
    auto.register(RemaskConfig, RemaskForDiffusion, exist_ok=True)

__all__ = ["RemaskConfig", "RemaskForDiffusion", "export", "transformers_tokenizer"]
