"""What a recipe may say of the network."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from remask.config.schema.latents import ConceptPriorNetworkSpec
from remask.config.schema.section import Section, Whole, as_tuple, gated_width

BlockType = Literal["reversible", "standard"]

# --- networks: what predicts --------------------------------------------------------------------------------


class SizesSpec(Section):
    """The size of blocks of attention and a gated MLP."""

    kind: Any  # narrowed by each kind; named here so that it comes first
    width: Whole = Field(default=256, ge=2, description="features a token; a multiple of heads")
    layers: Whole = Field(default=4, ge=1, description="blocks")
    heads: Whole = Field(default=4, ge=1, description="attention heads; width / heads must be even")
    mlp_width: Whole | None = Field(
        default=None, ge=1, description="hidden features of the gated MLP; null: 8/3 width, rounded to 32"
    )
    experts: Whole | None = Field(
        default=None, ge=2, description="gated MLPs a block, of which a token uses a few; null: one, for every token"
    )
    experts_per_token: Whole | None = Field(
        default=None, ge=1, description="experts that a token uses, at most all; null: 2 of several"
    )
    expert_width: Whole | None = Field(
        default=None, ge=1, description="hidden features of an expert; null: mlp_width / experts_per_token"
    )
    balance_rate: float | None = Field(
        default=None, ge=0, le=1, description="step a training step towards evenly used experts; null: 1e-2"
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="share of activations dropped in training")
    head: Literal["tied", "untied"] = Field(
        default="untied", description="output weights: the embedding's, or their own"
    )

    @property
    def hidden_width(self) -> int:
        """Hidden features that a token uses in each block: of the one gated MLP, or of its experts together."""
        return self.mlp_width or gated_width(self.width)

    @property
    def active_experts(self) -> int:
        """Experts that a token uses, where there are any."""
        return self.experts_per_token or 2


class BlocksSpec(SizesSpec):
    """What every network says that reads tokens through blocks of attention and a gated MLP."""

    attention: Literal["bidirectional", "block_causal", "causal"] = Field(
        default="bidirectional",
        description="what a token sees of its document: all, its block and those before, or only what is left of it",
    )
    time_conditioning: Literal["none", "adaln_zero", "adaln_bounded"] = Field(
        default="none",
        description="how the network learns the time t; adaln_bounded: adaln_zero whose scales cannot run away",
    )


class TransformerSpec(BlocksSpec):
    """Rotary positions, RMSNorm, gated MLP."""

    kind: Literal["transformer"] = Field(  # pyright: ignore[reportIncompatibleVariableOverride]
        default="transformer", description="rotary positions, RMSNorm, gated MLP"
    )


class ReversibleSpec(BlocksSpec):
    """The transformer with blocks on two streams, whose activations follow from their outputs."""

    kind: Literal["reversible"] = Field(  # pyright: ignore[reportIncompatibleVariableOverride]
        default="reversible", description="the transformer with blocks on two streams, which can be undone"
    )
    block_types: Annotated[tuple[BlockType, ...], BeforeValidator(as_tuple)] | None = Field(
        default=None, description="reversible or standard, for each block; null: all reversible"
    )
    coupling: Literal["additive", "affine"] = Field(
        default="additive", description="how an update meets its stream: added, or added to the stream scaled"
    )
    activations: Literal["inverted", "stored"] = Field(
        default="inverted",
        description="what training keeps of reversible blocks: nothing (computed again from outputs), or all",
    )

    @property
    def types(self) -> tuple[BlockType, ...]:
        """The type of each block."""
        return self.block_types or ("reversible",) * self.layers

    @property
    def reversible_blocks(self) -> int:
        """How many blocks are reversible."""
        return self.types.count("reversible")


class LettersSpec(Section):
    """The letters of a token, as a part of what an encoder of concepts reads."""

    least: Whole = Field(default=2, ge=1, le=8, description="letters of the shortest n-gram, boundaries counted")
    most: Whole = Field(default=5, ge=1, le=8, description="letters of the longest n-gram")
    buckets: Whole = Field(default=32_768, ge=1, description="vectors that all n-grams share by a hash")
    learned: bool = Field(
        default=True, description="whether these vectors are trained; false: they stay a random projection of n-grams"
    )


class CoOccurrenceSpec(Section):
    """What stands near each token in the training text, as a part of its concepts."""

    window: Whole = Field(default=5, ge=1, le=64, description="greatest distance, in tokens, that is near")


STRETCHED = ("stretches", "stretch_states")
"""Encoders whose concepts are stretches of a text: C at most, in its order."""


class ConceptSpec(Section):
    """A bottleneck of concept vectors: an encoder of one text, and a decoder of another that knows it through them."""

    kind: Literal["concept"] = Field(default="concept", description="a bottleneck of concept vectors between two texts")
    width: Whole = Field(default=256, ge=2, description="features a token and a concept; a multiple of heads")
    heads: Whole = Field(default=4, ge=1, description="attention heads; width / heads must be even")
    mlp_width: Whole | None = Field(
        default=None, ge=1, description="hidden features of the gated MLPs; null: 8/3 width, rounded to 32"
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="share of activations dropped in training")
    encoder: Literal["perceiver", "two_way", "recursive", "tokens", "stretches", "stretch_states", "mean", "none"] = (
        Field(
            default="perceiver",
            description="how a text becomes concepts: read by learned latents; read while tokens learn of the "
            "latents; by one layer again and again; every token a concept (no bottleneck); the means of C stretches of "
            "it, a token each where it is shorter; such means of tokens and of their states in context, half of the "
            "features each; the mean of its tokens; not at all",
        )
    )
    layers: Whole = Field(
        default=2,
        ge=1,
        description="layers of the encoder; recursive: passes of its one layer; not read by mean, stretches and none",
    )
    min_depth: Whole | None = Field(
        default=None, ge=1, description="recursive: fewest passes that a training step makes; null: always all"
    )
    concepts: Whole = Field(
        default=16,
        ge=1,
        description="C, concept vectors a text (stretches, stretch_states: at most); not read by tokens, mean and none",
    )
    slots: Literal["reading", "competing"] = Field(
        default="reading", description="how latents share tokens: each reads for itself, or they compete for each token"
    )
    local_width: Whole = Field(
        default=5,
        ge=1,
        description="neighbouring source tokens mixed before latents read them; odd, 1: none; not read by encoders "
        "without latents",
    )
    letters: LettersSpec | None = Field(
        default=None, description="add the vectors of its letter n-grams to each source token; null: none"
    )
    rarity: float | None = Field(
        default=None,
        gt=0,
        description="a source token counts a / (a + its share of the training text), times a learned number, a being "
        "this; null: all alike",
    )
    co_occurrence: CoOccurrenceSpec | None = Field(
        default=None,
        description="stretch_states: a third of a concept's features says what its tokens stand near in the training "
        "text, counted before training begins (another third is then words, and one states); null: none",
    )
    freeze_encoder: bool = Field(
        default=False, description="leave the encoder as it was drawn, but for what it counted: a baseline"
    )
    latent_width: Whole | None = Field(
        default=None,
        ge=3,
        description="features of a concept between encoder and decoder, of mean 0 and variance 1, so that two would "
        "say one bit; null: width",
    )
    decoder: Literal["denoising", "perceiver", "position_only", "weighted", "stretch", "none"] = Field(
        default="denoising",
        description="what a decoded place sees: noisy tokens, time and concepts; its own noisy token and concepts; "
        "concepts alone; one fixed mixture of concepts; the concept of its own stretch; none: concepts are compared "
        "alone, and nothing is decoded",
    )
    decoder_layers: Whole = Field(
        default=2, ge=1, description="layers of the decoder; not read by weighted, stretch and none"
    )
    decoder_local_width: Whole = Field(
        default=9, ge=1, description="denoising: neighbouring noisy tokens that a convolution mixes; odd"
    )
    scratch: Whole = Field(default=16, ge=1, description="denoising: latents through which noisy tokens see each other")
    head: Literal["tied", "untied"] = Field(
        default="tied", description="output weights: the embedding's times one learned number, or their own"
    )

    @property
    def hidden_width(self) -> int:
        """Hidden features of the gated MLPs."""
        return self.mlp_width or gated_width(self.width)

    @property
    def attention(self) -> Literal["bidirectional"]:
        """What a decoded place may see of its text."""
        return "bidirectional"

    @property
    def bands(self) -> Literal[2, 3]:
        """Parts of the features of `stretch_states` that mean something each by itself."""
        return 2 if self.co_occurrence is None else 3

    @property
    def band_width(self) -> int:
        """Features of each of them."""
        return self.width // self.bands

    @property
    def decoder_depth(self) -> int:
        """Layers of the decoder; 0 where there is none, 1 where it is a single MLP."""
        return {"none": 0, "weighted": 1, "stretch": 1}.get(self.decoder, self.decoder_layers)

    @property
    def slot_count(self) -> int | None:
        """Concepts a text has; None where a short text has fewer than a long one."""
        return {**dict.fromkeys(("tokens", *STRETCHED)), "mean": 1, "none": 0}.get(self.encoder, self.concepts)


class AdaptedSpec(Section):
    """A Hugging Face causal language model, and what of it is trained."""

    kind: Any  # as in `SizesSpec`
    name: str = Field(min_length=1, description="its name on the Hub, or a local folder")
    adaptation: Literal["full", "lora"] = Field(
        default="full", description="what is trained: every weight, or low-rank updates beside frozen ones"
    )
    lora_rank: Whole = Field(default=16, ge=1, description="rank of the low-rank updates")
    lora_alpha: float = Field(default=32.0, gt=0, description="the updates are scaled by lora_alpha / lora_rank")
    lora_targets: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] | None = Field(
        default=None,
        description="names of the layers that get updates, or of what they are part of; null: every linear layer of "
        "the blocks but gates and routed experts (which `experts` adds)",
    )
    quantisation: Literal["none", "nf4"] = Field(
        default="none", description="nf4: hold the frozen weights in 4 bits, experts included (lora; slow on a CPU)"
    )
    embeddings: Literal["device", "cpu"] = Field(
        default="device", description="where the frozen table of embeddings lies; cpu: looked up there (lora)"
    )
    saved: Literal["merged", "adapters"] | None = Field(
        default=None,
        description="what a finished model holds: all weights, updates added; or what was trained (lora), and the "
        "name of the rest; null: adapters where weights are in 4 bits, else merged",
    )

    @property
    def saved_base(self) -> str | None:
        """The model that a finished one is to be found beside; None where it holds all weights itself."""
        own = "adapters" if self.quantisation != "none" else "merged"
        return self.name if (self.saved or own) == "adapters" else None


class PretrainedSpec(AdaptedSpec):
    """A Hugging Face causal language model, adapted to denoise."""

    kind: Literal["pretrained"] = Field(  # pyright: ignore[reportIncompatibleVariableOverride]
        default="pretrained", description="a Hugging Face causal language model, adapted to denoise"
    )
    attention: Literal["bidirectional", "block_causal", "causal"] = Field(
        default="bidirectional",
        description="what a token sees of its document: all, its block and those before, or only what is left of it",
    )
    anneal_ratio: float = Field(
        default=0.0, ge=0, le=1, description="share of the steps over which causal attention opens up; 0: at once"
    )


class LatentTableSpec(Section):
    """What networks of thoughts say beside their size."""

    latent: Literal["learned", "random", "own", "codec"] = Field(
        default="learned",
        description="what is diffused: the vectors of tokens, from a learned table, a random one, or the network's own "
        "embedding, held still; or a codec's vectors of a response",
    )
    codec: str | None = Field(
        default=None,
        min_length=1,
        description="latent=codec: a run of recipe thought-codec or concept-autoencoder, its id or its folder",
    )
    latent_width: Whole | None = Field(
        default=None,
        ge=1,
        description="features of a token's vector; null: 16, or what the own embedding has",
    )
    readout: Literal["tokens", "vectors", "logit_columns"] = Field(
        default="tokens",
        description="what the network says: tokens, whose mean vector is the estimate; a vector; or a vector that is "
        "the first logits of the vocabulary (an ablation that does not learn)",
    )
    time: Literal["shown", "none"] = Field(
        default="shown", description="whether the network knows the time; none: an ablation"
    )
    question: Literal["shown", "hidden"] = Field(
        default="shown", description="whether it reads the question; hidden: masks in its place, an ablation"
    )
    attention: Literal["bidirectional", "causal"] = Field(
        default="bidirectional", description="what a place sees of question and thought: all, or what is left of it"
    )

    @property
    def table_width(self) -> int:
        """Features of a token's vector where the table is no embedding."""
        return self.latent_width or 16


class ThoughtSpec(LatentTableSpec, SizesSpec):
    """Question and noisy vectors through blocks of our own."""

    kind: Literal["thought"] = Field(  # pyright: ignore[reportIncompatibleVariableOverride]
        default="thought", description="question and noisy vectors through blocks that are trained from scratch"
    )


class ThoughtPretrainedSpec(LatentTableSpec, AdaptedSpec):
    """Question and noisy vectors through a Hugging Face causal language model."""

    kind: Literal["thought_pretrained"] = Field(  # pyright: ignore[reportIncompatibleVariableOverride]
        default="thought_pretrained", description="question and noisy vectors through a Hugging Face language model"
    )


class TextAutoencoderNetworkSpec(Section):
    """A response as a few narrow vectors, and back."""

    kind: Literal["text_autoencoder"] = Field(
        default="text_autoencoder", description="responses as a few Gaussian vectors, and written again from them"
    )
    encoder: Literal["own", "frozen"] = Field(
        default="own", description="what reads a response: blocks that are trained, or a language model left as it is"
    )
    name: str | None = Field(
        default=None, min_length=1, description="frozen: the model's name on the Hub, or a local folder"
    )
    width: Whole = Field(default=128, ge=2, description="features a token; a multiple of heads")
    layers: Whole = Field(default=2, ge=1, description="blocks of the decoder, and of an encoder of its own")
    heads: Whole = Field(default=4, ge=1, description="attention heads; width / heads must be even")
    mlp_width: Whole | None = Field(
        default=None, ge=1, description="hidden features of the gated MLPs; null: 8/3 width, rounded to 32"
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="share of activations dropped in training")
    length: Whole | None = Field(
        default=None,
        ge=1,
        description="tokens of a response, filled up with ends of text; of longer ones the rest is lost; null: "
        "data.length",
    )
    stride: Whole = Field(default=1, ge=1, description="neighbouring tokens that become one vector; divides length")
    latent_width: Whole = Field(default=16, ge=1, description="features of a vector")

    @property
    def hidden_width(self) -> int:
        """Hidden features of the gated MLPs."""
        return self.mlp_width or gated_width(self.width)

    @property
    def attention(self) -> Literal["bidirectional"]:
        """What a written place may see of its text."""
        return "bidirectional"


NetworkSpec = Annotated[
    TransformerSpec
    | ReversibleSpec
    | ConceptSpec
    | ConceptPriorNetworkSpec
    | PretrainedSpec
    | ThoughtSpec
    | ThoughtPretrainedSpec
    | TextAutoencoderNetworkSpec,
    Field(discriminator="kind"),
]
