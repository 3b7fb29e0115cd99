"""What a recipe may say of autoencoders of texts, and of a diffusion over the concept vectors between their parts."""

from typing import Any, Literal

from pydantic import Field

from remask.config.schema.bounds import BoundSpec, WeightedBoundSpec
from remask.config.schema.section import Section, Whole, gated_width


class LatentSpec(Section):
    """The noise that lies on concept vectors between encoder and decoder."""

    kind: Any  # narrowed by each kind; named here so that it comes first
    latent_noise: Literal["cosine", "linear", "square_root"] = Field(
        default="cosine", description="how Gaussian noise on concept vectors grows over time"
    )
    latent_time: float = Field(
        default=0.3, gt=0, lt=1, description="the time whose noise the decoder sees on them; less says more of a text"
    )


class ConceptAutoencoderSpec(WeightedBoundSpec, LatentSpec):
    """A whole text through noisy concepts."""

    kind: Literal["concept_autoencoder"] = Field(  # pyright: ignore[reportIncompatibleVariableOverride]
        default="concept_autoencoder", description="masked diffusion of a text that is told its own noisy concepts"
    )
    blind_share: float = Field(
        default=0.1, ge=0, lt=1, description="share of training rows that are decoded without any concept"
    )


class ConceptPriorSpec(BoundSpec, LatentSpec):
    """Diffusion of the concept vectors of a finished autoencoder."""

    kind: Literal["concept_prior"] = Field(  # pyright: ignore[reportIncompatibleVariableOverride]
        default="concept_prior", description="Gaussian diffusion of the concepts of network.codec; its bound is on text"
    )
    prediction: Literal["velocity", "clean", "noise"] = Field(
        default="velocity", description="what the network says of noisy vectors"
    )
    weighting: Literal["own", "min_snr", "bound"] = Field(
        default="own",
        description="weight of each time in training: that of the prediction's own squared error, the noise's cut at "
        "SNR 5, or the bound's",
    )
    time_exponent: float = Field(
        default=1.0, gt=0, le=10, description="training times are u to this power, u uniform; below 1: more noise"
    )


class ConceptPriorNetworkSpec(Section):
    """A denoiser of concept vectors around a finished autoencoder of texts."""

    kind: Literal["concept_prior"] = Field(
        default="concept_prior", description="a denoiser of the concept vectors of a finished autoencoder"
    )
    codec: str = Field(min_length=1, description="a run of recipe concept-autoencoder: its id, or its folder")
    width: Whole = Field(default=256, ge=2, description="features a vector inside; a multiple of heads")
    layers: Whole = Field(default=4, ge=1, description="blocks")
    heads: Whole = Field(default=4, ge=1, description="attention heads; width / heads must be even")
    mlp_width: Whole | None = Field(
        default=None, ge=1, description="hidden features of the gated MLP; null: 8/3 width, rounded to 32"
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="share of activations dropped in training")

    @property
    def hidden_width(self) -> int:
        """Hidden features of the gated MLP."""
        return self.mlp_width or gated_width(self.width)

    @property
    def attention(self) -> Literal["bidirectional"]:
        """What a decoded place may see of its text."""
        return "bidirectional"
