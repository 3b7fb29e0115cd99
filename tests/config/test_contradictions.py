"""Keys that are each valid but do not go together get one line that says what to give instead."""

import pytest

from remask.config.load import load_recipe
from remask.errors import UserError

REVERSIBLE = ["mdlm", "network.kind=reversible"]
CLASHES = [
    (
        ["mdlm", "data.mixture=[{source: a.jsonl, prompt_key: q}]"],
        "data.mixture: entry 1 with prompt_key given, but its response_key is null, and pairs need both; give "
        "response_key too, or neither",
    ),
    (
        ["mdlm", "tracking.mode=online", "tracking.sinks=[tensorboard]"],
        "tracking.mode: online given, but only wandb reads it; give tracking.mode=offline, or tracking.sinks=[wandb]",
    ),
    (
        ["mdlm", "objective.kind=block_diffusion", "sampling.block_length=16"],
        "network.attention: bidirectional given, but objective block_diffusion predicts from both sides of its block; "
        "give network.attention=block_causal",
    ),
    (
        ["bd3lm", "sampling.block_length=null"],
        "sampling.block_length: null given, but this model learns blocks of objective.block_length=16; give "
        "sampling.block_length=16",
    ),
    (
        ["bd3lm", "data.length=100"],
        "objective.block_length: 16 given, but it does not divide data.length=100; give a divisor, or another "
        "data.length",
    ),
    (
        ["bd3lm", "network.time_conditioning=adaln_zero"],
        "network.time_conditioning: adaln_zero given, but each block of a row has a time of its own; give "
        "network.time_conditioning=none",
    ),
    (
        ["udlm", "sampling.sampler=margin"],
        "sampling.sampler: margin given, but it needs masked tokens and process.kind is uniform; give "
        "sampling.sampler=ancestral, or process.kind=masking",
    ),
    (
        ["udlm", "sampling.block_length=8"],
        "sampling.block_length: 8 given, but only masking noise is drawn in blocks, and process.kind is uniform; give "
        "sampling.block_length=null",
    ),
    (
        ["gidd", "objective.kind=score_entropy"],
        "process.kind: hybrid given, but objective score_entropy is defined for masking and uniform noise; give "
        "process.kind=masking, or objective.kind=likelihood_bound",
    ),
    (
        ["udlm", "objective.kind=proofreading"],
        "process.kind: uniform given, but objective proofreading is defined for masking noise; give "
        "process.kind=masking, or objective.kind=likelihood_bound",
    ),
    (
        ["udlm", "objective.kind=bijective"],
        "process.kind: uniform given, but objective bijective is defined for masking noise; give "
        "process.kind=masking, or objective.kind=likelihood_bound",
    ),
    (
        ["bijective", "objective.curriculum_ratio=0.5", "objective.t_min=0.5"],
        "objective.curriculum_start: 0.25 given, but a curriculum starts above objective.t_min=0.5; give a larger "
        "objective.curriculum_start, or objective.curriculum_ratio=0",
    ),
    (
        ["mdlm", "sampling.eta=0.1"],
        "sampling.eta: 0.1 given, but only sampler remdm reads it, and sampling.sampler is ancestral; give "
        "sampling.eta=null, or sampling.sampler=remdm",
    ),
    (
        ["mdlm", "sampling.sampler=proofreading"],
        "sampling.sampler: proofreading given, but only objective proofreading teaches a network to find wrong tokens; "
        "give sampling.sampler=ancestral (or remdm), or objective.kind=proofreading",
    ),
    (
        ["ar", "sampling.guidance=1"],
        "sampling.guidance: 1.0 given, but guidance masks the prompt, which an autoregressive model cannot read; give "
        "sampling.guidance=0",
    ),
    (
        ["mdlm", "data.prompt_key=question"],
        "data.prompt_key: question given, but data.response_key is null, and pairs need both; give data.response_key "
        "too, or neither",
    ),
    (
        ["mdlm", "data.length=64", "data.prefix=64"],
        "data.prefix: 64 given, but data.length=64 leaves no token behind it to learn; give data.prefix=63 or less, or "
        "another data.length",
    ),
    (
        ["mdlm", "data.stride=8"],
        "data.stride: 8 given, but only rows with a prefix overlap; give data.stride=null",
    ),
    (
        ["sudoku-mdlm", "data.prefix=4"],
        "data.prefix: 4 given, but the prompts of pairs are given already; give data.prefix=null, or plain text",
    ),
    (
        ["mdlm", "data.prefix=4", "data.streaming=true"],
        "data.prefix: 4 given, but a stream is packed, and rows with a prefix lie in one document each; give "
        "data.prefix=null, or data.streaming=false",
    ),
    (
        ["mdlm", "data.prefix=4", "data.mixture=[{source: a.tsv, prompt_key: q, response_key: a}]"],
        "data.mixture: entry 1 of pairs given, but data.prefix=4 cuts plain text alone; give data.prefix=null",
    ),
    (
        ["mdlm", "data.prefix=0", "training.prompt_dropout=0.1"],
        "training.prompt_dropout: 0.1 given, but the text has no prompts; give training.prompt_dropout=0, or "
        "data.prompt_key and data.response_key",
    ),
    (
        ["mdlm", "data.pad=end"],
        "data.pad: end given, but only prompt-response pairs are padded; give data.pad=none, or data.prompt_key and "
        "data.response_key",
    ),
    (
        ["sudoku-ar", "data.pad=end"],
        "data.pad: end given, but an autoregressive model ends a response by itself; give data.pad=none",
    ),
    (
        ["sudoku-mdlm", "data.validation=more.jsonl"],
        "data.validation: more.jsonl given, but source sudoku4 makes its own pairs and splits; give "
        "data.validation=null",
    ),
    (
        ["mdlm-file", "data.source=F", "data.lanes=4"],
        "data.lanes: 4 given, but only a stream reads it; give data.lanes=null, or data.streaming=true",
    ),
    (
        ["mdlm-file", "data.source=F", "data.weight=2"],
        "data.weight: 2.0 given, but there is no other source to weigh it against; give data.weight=1, or data.mixture",
    ),
    (
        ["mdlm-file", "data.source=F", "data.streaming=true", "data.lanes=24", "training.batch_size=64"],
        "data.lanes: 24 given, but it does not divide training.batch_size=64; give data.lanes=8, or "
        "training.batch_size=72",
    ),
    (
        ["mdlm-file", "data.source=F", "data.streaming=true", "tokenizer.kind=character"],
        "tokenizer.kind: character given, but a stream may hold characters that its sample has not; give "
        "tokenizer.kind=byte (or bpe)",
    ),
    (
        ["mdlm-file", "data.source=F", "data.streaming=true", "data.max_documents=3"],
        "data.max_documents: 3 given, but streams are plain text, and read to their end; give max_documents=null, or "
        "data.streaming=false",
    ),
    (
        ["mdlm-file", "data.source=F", "data.streaming=true", "data.mixture=[{source: G, prompt_key: q}]"],
        "data.mixture: prompt_key=q given, but streams are plain text, and read to their end; give prompt_key=null, or "
        "data.streaming=false",
    ),
    (
        ["mdlm-file", "data.source=F", "data.mixture=[{source: G, config: en}]"],
        "data.mixture: entry 1 with config=en given, but G is no Hugging Face dataset; give the entry without config, "
        "or source: hf:NAME",
    ),
    (
        ["mdlm", "training.prompt_dropout=0.1"],
        "training.prompt_dropout: 0.1 given, but the text has no prompts; give training.prompt_dropout=0, or "
        "data.prompt_key and data.response_key",
    ),
    (
        ["convert-mdlm", "tokenizer.kind=byte"],
        "tokenizer.kind: byte given, but a pretrained network reads the ids of its own tokenizer; give "
        "tokenizer.kind=huggingface and tokenizer.name=Qwen/Qwen3-0.6B-Base",
    ),
    (
        ["convert-mdlm", "network.quantisation=nf4"],
        "network.quantisation: nf4 given, but weights held in 4 bits are frozen; give network.adaptation=lora, or "
        "network.quantisation=none",
    ),
    (
        ["convert-ar", "network.anneal_ratio=0.5"],
        "network.anneal_ratio: 0.5 given, but causal attention stays closed; give network.anneal_ratio=0, or "
        "network.attention=bidirectional",
    ),
    (
        ["mdlm", "network.experts_per_token=2"],
        "network.experts_per_token: 2 given, but the network has no experts; give network.experts_per_token=null, or "
        "network.experts=8",
    ),
    (
        ["mdlm", "network.balance_rate=0.0"],
        "network.balance_rate: 0.0 given, but the network has no experts; give network.balance_rate=null, or "
        "network.experts=8",
    ),
    (
        ["mdlm-moe", "network.experts_per_token=9"],
        "network.experts_per_token: 9 given, but there are network.experts=8; give network.experts_per_token=8 or less",
    ),
    (
        ["mdlm-moe", "network.experts_per_token=3"],
        "network.experts_per_token: 3 given, but it does not divide network.mlp_width=512; give network.mlp_width=513, "
        "or network.expert_width=171",
    ),
    (
        ["mdlm-moe", "network.expert_width=64", "network.mlp_width=512"],
        "network.mlp_width: 512 given, but network.expert_width takes its place; give network.mlp_width=null, or "
        "network.expert_width=null",
    ),
    (
        [*REVERSIBLE, "network.block_types=[reversible,standard]"],
        "network.block_types: 2 types given, but there are network.layers=4; give a type for each of them, or "
        "network.layers=2",
    ),
    (
        [*REVERSIBLE, "network.block_types=[reversible]"],
        "network.block_types: 1 type given, but there are network.layers=4; give a type for each of them, or "
        "network.layers=1",
    ),
    (
        [*REVERSIBLE, "network.block_types=[]"],
        "network.block_types: 0 types given, but there are network.layers=4; give a type for each of them, or null",
    ),
    (
        [*REVERSIBLE, "network.block_types=[standard,standard,standard,standard]"],
        "network.kind: reversible given, but no block is reversible; give network.kind=transformer without "
        "block_types, coupling and activations",
    ),
    (
        [*REVERSIBLE, "network.coupling=affine", "network.layers=17"],
        "network.coupling: affine given, but the scales of more than 16 reversible blocks multiply beyond what "
        "rounding forgives, and there are 17; give network.coupling=additive, or 16 reversible blocks",
    ),
    (
        [*REVERSIBLE, "training.gradient_checkpointing=true"],
        "training.gradient_checkpointing: true given, but inverted activations are computed again already; give "
        "training.gradient_checkpointing=false, or network.activations=stored",
    ),
    (
        [*REVERSIBLE, "training.parallel=fsdp"],
        "network.activations: inverted given, but blocks are undone with weights that are whole; give "
        "network.activations=stored (gradient_checkpointing=true saves memory there), or training.parallel=ddp",
    ),
    (
        [*REVERSIBLE, "network.experts_per_token=2"],
        "network.experts_per_token: 2 given, but the network has no experts; give network.experts_per_token=null, or "
        "network.experts=8",
    ),
    (
        [*REVERSIBLE, "network.width=191"],
        "network.width: 191 given, but it is no multiple of network.heads=3; give network.width=186, or another "
        "network.heads",
    ),
    (
        ["bd3lm", "network.kind=reversible", "network.time_conditioning=adaln_zero"],
        "network.time_conditioning: adaln_zero given, but each block of a row has a time of its own; give "
        "network.time_conditioning=none",
    ),
    (
        ["concept-tsdae", "network.letters={least: 6, most: 4}"],
        "network.letters.least: 6 given, but it is more than network.letters.most=4; give network.letters.least=4 or "
        "fewer",
    ),
    (
        ["concept-diffusion", "network.encoder=none", "network.letters={}", "objective.nested_share=0"],
        "network.letters: letters given, but an encoder of kind none reads no token; give network.letters=null, or "
        "network.encoder=perceiver",
    ),
    (
        ["concept-diffusion", "network.encoder=two_way", "network.layers=2", "network.rarity=1e-3"],
        "network.rarity: 0.001 given, but an encoder of kind two_way reads all tokens as equally large ones, or none; "
        "give network.rarity=null, or network.encoder=perceiver or recursive or stretches or "
        "stretch_states or mean",
    ),
    (
        ["concept-diffusion", "network.co_occurrence={}"],
        "network.co_occurrence: co_occurrence given, but an encoder of kind perceiver keeps no part of its concepts "
        "for it; give network.co_occurrence=null, or network.encoder=stretch_states",
    ),
    (
        ["concept-context", "data.source=python-docs", "network.co_occurrence={}"],
        "network.width: 512 given, but a third of it is no even number of features for each of network.heads=4 heads; "
        "give network.width=528, or another network.heads",
    ),
    (
        ["concept-posonly-mlm", "network.decoder=stretch", "objective.hidden=masked"],
        "network.encoder: perceiver given, but its concepts are no stretches of a text; give "
        "network.encoder=stretch_states",
    ),
    (
        ["concept-posonly-mlm", "network.encoder=stretches", "network.decoder=stretch"],
        "objective.hidden: absent given, but a hidden place has no stretch that reads it; give "
        "objective.hidden=masked, or network.decoder=position_only",
    ),
    (
        ["concept-tsdae", "network.encoder=stretches", "network.decoder=stretch"],
        "objective.kind: concept_tsdae given, but a place has a stretch of its own in the row that was encoded alone; "
        "give objective.kind=concept_masked with objective.hidden=masked, or network.decoder=position_only",
    ),
    (
        [
            *("concept-posonly-mlm", "network.encoder=stretches", "network.decoder=stretch"),
            *("objective.hidden=masked", "network.concepts=128"),
        ],
        "network.concepts: 128 given, but a mask then is a concept by itself (data.length=128), which knows nothing of "
        "its place; give network.encoder=stretch_states, or fewer",
    ),
    (
        ["concept-posonly-mlm", "network.encoder=stretch_states", "network.width=198"],
        "network.width: 198 given, but half of it is no even number of features for each of network.heads=3 heads; "
        "give network.width=204, or another network.heads",
    ),
    (
        ["ar", "network.kind=reversible", "network.time_conditioning=adaln_zero"],
        "network.time_conditioning: adaln_zero given, but objective next_token has no time; give "
        "network.time_conditioning=none",
    ),
]


@pytest.mark.parametrize(("given", "line"), CLASHES, ids=[" ".join(given) for given, _ in CLASHES])
def test_keys_that_do_not_go_together_get_one_line(given, line):
    with pytest.raises(UserError) as caught:
        load_recipe(given[0], given[1:])
    assert str(caught.value).split("\n") == [line]


@pytest.mark.parametrize(
    "changes",
    [
        ["network.coupling=affine", "network.layers=16"],
        ["network.activations=stored", "training.gradient_checkpointing=true", "training.parallel=fsdp"],
        ["network.layers=17", "network.coupling=affine", f"network.block_types=[standard{',reversible' * 16}]"],
        ["training.compile=inductor"],
    ],
)
def test_reversible_networks_go_together_with_what_they_allow(changes):
    network = load_recipe(REVERSIBLE[0], [*REVERSIBLE[1:], *changes]).network
    assert network.kind == "reversible"
    assert len(network.types) == network.layers
    assert 1 <= network.reversible_blocks <= 16


EQUALS = ["md4", "udlm", "gidd", "sedd-absorb", "sedd-uniform", "bd3lm", "mlm", "proofread", "ar", "mdlm-moe"]


@pytest.mark.parametrize("name", EQUALS)
def test_the_recipes_of_one_table_are_equal_in_all_that_does_not_name_them(name):
    mdlm, other = (load_recipe(each).model_dump() for each in ("mdlm", name))
    for recipe in (mdlm, other):
        for key in ("name", "description", "process", "objective", "sampling"):
            del recipe[key]
        for key in ("attention", "experts", "experts_per_token"):
            del recipe["network"][key]
    assert mdlm == other
