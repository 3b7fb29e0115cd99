"""Networks with a bottleneck of concept vectors, from a recipe."""

from functools import partial

import torch
from torch import nn
from torch.nn import functional

from remask.config import schema
from remask.config.schema.section import gated_width
from remask.networks.blocks import Attention, GatedMLP, Residual
from remask.networks.concepts import ConceptNetwork
from remask.networks.concepts.co_occurrence import CoOccurrence
from remask.networks.concepts.competition import competing, competing_weights, reading_weights
from remask.networks.concepts.decoders import (
    DenoisingBlock,
    DenoisingDecoder,
    LookingBlock,
    LookingDecoder,
    Memory,
    WeightedDecoder,
    place_alone,
    token_and_place,
)
from remask.networks.concepts.encoders import (
    MeanConcept,
    NoConcept,
    PerceiverLayer,
    RecursiveEncoder,
    SlotEncoder,
    TokenStates,
    TwoWayLayer,
    local_reading,
)
from remask.networks.concepts.letters import Letters, Rarity
from remask.networks.concepts.stretches import StretchDecoder, StretchMeans, StretchStates
from remask.networks.normalisation import UnitRMS
from remask.networks.stacks import Stack, straight
from remask.randomness import keyed_generator
from remask.tokenizers import Tokenizer
from remask.tokenizers.letters import hashed_grams, token_texts


def build_concept_network(spec: schema.ConceptSpec, tokenizer: Tokenizer, *, length: int, seed: int) -> ConceptNetwork:
    """A concept network with weights drawn from the seed, on the CPU.

    Args:
        spec: its section of the recipe.
        tokenizer: text ⇄ ids.
        length: the longest row that is decoded, in tokens.
        seed: of the weights.
    """
    network = ConceptNetwork(
        vocab_size=tokenizer.vocab_size,
        width=spec.width,
        encoder=build_encoder(spec),
        decoder=build_decoder(spec, length=length),
        latent_width=spec.latent_width,
        source_embedding=nn.Embedding(tokenizer.vocab_size, spec.width) if spec.freeze_encoder else None,
        letters=None if spec.letters is None else build_letters(spec.letters, tokenizer, width=spec.width),
        rarity=None if spec.rarity is None else build_rarity(spec.rarity, tokenizer),
        co_occurrence=None if spec.co_occurrence is None else CoOccurrence(tokenizer.vocab_size, width=spec.band_width),
    )
    if spec.head == "tied" and spec.decoder != "none":
        network.tie_head()
    network.initialise(keyed_generator(seed, "weights"))
    if spec.freeze_encoder:
        network.freeze_encoder()
    elif network.letters is not None and spec.letters is not None:
        network.letters.requires_grad_(spec.letters.learned)
    return network


def build_letters(spec: schema.LettersSpec, tokenizer: Tokenizer, *, width: int) -> Letters:
    """The letters of each of a tokenizer's tokens."""
    texts = token_texts(tokenizer)
    grams = hashed_grams(texts, buckets=spec.buckets, least=spec.least, most=spec.most)
    return Letters(torch.from_numpy(grams), width=width, buckets=spec.buckets)


def build_rarity(smoothing: float, tokenizer: Tokenizer) -> Rarity:
    """How much each of a tokenizer's tokens counts."""
    return Rarity(tokenizer.vocab_size, smoothing=smoothing, mask_id=tokenizer.mask_id)


def build_encoder(spec: schema.ConceptSpec) -> nn.Module:
    """The encoder of a concept network."""
    width, heads, dropout = spec.width, spec.heads, spec.dropout
    match spec.encoder:
        case "none":
            return NoConcept()
        case "mean":
            return MeanConcept()
        case "stretches":
            return StretchMeans(spec.concepts)
        case "stretch_states":
            blocks, head_width = build_blocks(spec, width=spec.band_width)
            return StretchStates(width, spec.concepts, blocks, head_width=head_width, bands=spec.bands)
        case "tokens":
            blocks, head_width = build_blocks(spec, width=width)
            return TokenStates(blocks, head_width=head_width)
    mixing, weights = {
        "reading": (functional.scaled_dot_product_attention, reading_weights),
        "competing": (competing, competing_weights),
    }[spec.slots]
    common = {"mlp_width": spec.hidden_width, "dropout": dropout}
    one_way = partial(PerceiverLayer, width, heads, mixing=mixing, **common)
    both_ways = partial(TwoWayLayer, width, heads, weights=weights, **common)
    slots = {"pairs": width // heads // 2, "local": local_reading(width, spec.local_width, dropout=dropout)}
    plain = UnitRMS if spec.rarity is None else nn.Identity  # how large a token is says how much it counts
    match spec.encoder:
        case "perceiver":
            layers = [one_way(norm=nn.Identity()) for _ in range(spec.layers)]
            return SlotEncoder(width, spec.concepts, layers, norm=plain(), **slots)
        case "two_way":
            # nobody reads tokens behind the last layer, so nothing is written to them there
            layers = [*(both_ways() for _ in range(spec.layers - 1)), one_way(norm=UnitRMS())]
            return SlotEncoder(width, spec.concepts, layers, norm=nn.Identity(), **slots)
        case "recursive":
            depths = {"depth": spec.layers, "min_depth": spec.min_depth or spec.layers}
            layer = one_way(norm=nn.Identity())
            return RecursiveEncoder(width, spec.concepts, layer, norm=plain(), **depths, **slots)


def build_blocks(spec: schema.ConceptSpec, *, width: int) -> tuple[Stack, int]:
    """The blocks of an encoder in which every token sees every other, and the width of their heads."""
    hidden = spec.mlp_width or gated_width(width)
    inner = [(Attention(width, spec.heads), GatedMLP(width, hidden)) for _ in range(spec.layers)]
    return straight(width, inner, residual=partial(Residual, dropout=spec.dropout)), width // spec.heads


def build_decoder(spec: schema.ConceptSpec, *, length: int) -> nn.Module | None:
    """The decoder of a concept network, for rows of `length` tokens at most; None where it has none."""
    width, heads, hidden, dropout = spec.width, spec.heads, spec.hidden_width, spec.dropout
    memory = Memory(width, natural=spec.slot_count is None)
    match spec.decoder:
        case "none":
            return None
        case "denoising":
            block = partial(
                DenoisingBlock,
                width,
                heads,
                mlp_width=hidden,
                local_width=spec.decoder_local_width,
                dropout=dropout,
            )
            blocks = [block() for _ in range(spec.decoder_layers)]
            return DenoisingDecoder(width, heads, blocks, scratch=spec.scratch, memory=memory)
        case "perceiver" | "position_only" as kind:
            queries = {"perceiver": token_and_place, "position_only": place_alone}[kind]
            layer = partial(LookingBlock, width, heads, mlp_width=hidden, dropout=dropout)
            blocks = [layer() for _ in range(spec.decoder_layers)]
            return LookingDecoder(width, heads, blocks, memory=memory, queries=queries)
        case "stretch":
            return StretchDecoder(width, spec.concepts, mlp=GatedMLP(width, hidden))
        case "weighted":
            assert spec.slot_count, "a table has a column for each of a fixed number of concepts"
            return WeightedDecoder(width, spec.slot_count, length=length, mlp=GatedMLP(width, hidden))
