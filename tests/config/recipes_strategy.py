"""Random recipes that agree with themselves, for property tests."""

from hypothesis import strategies as st

from remask.config.schema import (
    BijectiveSpec,
    BlockDiffusionSpec,
    BPETokenizerSpec,
    ByteTokenizerSpec,
    CharacterTokenizerSpec,
    CosineScheduleSpec,
    DataSpec,
    EvaluationSpec,
    HuggingFaceTokenizerSpec,
    HybridSpec,
    LikelihoodBoundSpec,
    LinearScheduleSpec,
    LogLinearScheduleSpec,
    MaskedLanguageModelSpec,
    MaskingSpec,
    NextTokenSpec,
    PolynomialScheduleSpec,
    ProofreadingSpec,
    Recipe,
    ReversibleSpec,
    SamplingSpec,
    ScoreEntropySpec,
    SourceSpec,
    TrainingSpec,
    TransformerSpec,
    UniformSpec,
)

TEXT = st.text(min_size=1, max_size=20)
COUNT = st.integers(1, 10**6)
OPEN_SHARE = st.floats(0, 1, exclude_min=True, exclude_max=True)
SCHEDULES = st.one_of(
    st.builds(LinearScheduleSpec),
    st.builds(CosineScheduleSpec),
    st.builds(PolynomialScheduleSpec, power=st.floats(0, 16, exclude_min=True)),
    st.builds(LogLinearScheduleSpec, epsilon=OPEN_SHARE),
)
OPEN_TOKENIZERS = st.one_of(
    st.builds(ByteTokenizerSpec),
    st.builds(BPETokenizerSpec, vocab_size=st.integers(258, 2**20)),
    st.builds(HuggingFaceTokenizerSpec, name=TEXT),
)
TOKENIZERS = st.one_of(st.builds(CharacterTokenizerSpec), OPEN_TOKENIZERS)
WEIGHT = st.floats(0, 1e6, exclude_min=True)
SOURCES = st.builds(SourceSpec, source=TEXT, weight=WEIGHT, text_key=TEXT, separator=st.none() | TEXT)


@st.composite
def data(draw):
    shared = {
        "length": draw(st.integers(2, 10**5)),
        "text_key": draw(TEXT),
        "separator": draw(st.none() | TEXT),
    }
    if draw(st.booleans()):
        shared |= {"mixture": tuple(draw(st.lists(SOURCES, min_size=1, max_size=3))), "weight": draw(WEIGHT)}
    if draw(st.booleans()):
        stream = {"streaming": True, "lanes": 1, "shuffle_documents": draw(st.none() | COUNT), "workers": 3}
        return DataSpec(source="hf:" + draw(TEXT), config=draw(st.none() | TEXT), **stream, **shared)
    held_out = st.none() | TEXT
    return DataSpec(source=draw(TEXT), validation=draw(held_out), max_documents=draw(st.none() | COUNT), **shared)


@st.composite
def training(draw):
    micro = draw(st.integers(1, 64))
    steps = draw(COUNT)
    return TrainingSpec(
        steps=steps,
        warmup_ratio=draw(st.floats(0, 0.99)),
        batch_size=micro * draw(st.integers(1, 64)),
        micro_batch_size=draw(st.sampled_from([None, micro])),
        learning_rate=draw(st.floats(0, 10, exclude_min=True)),
        betas=(draw(st.floats(0, 0.999)), draw(st.floats(0, 0.999))),
        decay=draw(st.sampled_from(["cosine", "linear", "constant", "wsd"])),
        clip=draw(st.floats(0, exclude_min=True, allow_infinity=False)),
    )


OF_ANY_NOISE = ["ancestral", "analytic", "tau_leaping", "predictor_corrector"]
OF_MASKS = [*OF_ANY_NOISE, "confidence", "margin", "entropy", "entropy_bounded", "remdm", "bijective"]


@st.composite
def denoising(draw):
    """Objective, process, attention, samplers and block length that agree."""
    t_min, schedule = draw(OPEN_SHARE), draw(SCHEDULES)
    masking = MaskingSpec(schedule=schedule)
    uniform = UniformSpec(schedule=schedule)
    hybrid = HybridSpec(uniform_share=draw(OPEN_SHARE), schedule=schedule)
    process = draw(st.sampled_from([masking, uniform, hybrid]))
    samplers = OF_MASKS if process is masking else OF_ANY_NOISE
    match draw(st.sampled_from(["bound", "score", "mlm", "proofreading", "bijective", "blocks"])):
        case "bound":
            return LikelihoodBoundSpec(t_min=t_min), process, "bidirectional", samplers, None
        case "score":
            process = draw(st.sampled_from([masking, uniform]))
            samplers = OF_MASKS if process is masking else OF_ANY_NOISE
            return ScoreEntropySpec(t_min=t_min), process, "bidirectional", samplers, None
        case "mlm":
            return MaskedLanguageModelSpec(rate=draw(OPEN_SHARE)), masking, "bidirectional", OF_MASKS, None
        case "proofreading":
            return ProofreadingSpec(t_min=t_min), masking, "bidirectional", [*OF_MASKS, "proofreading"], None
        case "bijective":
            reveal = draw(st.sampled_from(["spread", "left_to_right", "random", "confidence", "margin", "entropy"]))
            spec = BijectiveSpec(
                t_min=t_min,
                likelihood_weight=draw(st.floats(0, 100)),
                likelihood_warmup_ratio=draw(st.floats(0, 1)),
                likelihood_steps=draw(COUNT),
                likelihood_reveal=reveal,
                likelihood_estimate=draw(st.sampled_from(["one_step", "all_steps"])),
            )
            return spec, masking, "bidirectional", OF_MASKS, None
        case _:
            block = draw(st.integers(1, 64))
            return BlockDiffusionSpec(t_min=t_min, block_length=block), masking, "block_causal", OF_MASKS, block


@st.composite
def networks(draw, **common):
    if draw(st.booleans()):
        return TransformerSpec(**common)
    kinds = ("reversible", *draw(st.lists(st.sampled_from(["reversible", "standard"]), max_size=7)))
    return ReversibleSpec(
        **common,
        layers=len(kinds),
        block_types=draw(st.sampled_from([None, kinds])),
        coupling=draw(st.sampled_from(["additive", "affine"])),
        activations="stored",
    )


@st.composite
def recipes(draw):
    if draw(st.booleans()):
        objective, process, attention, block = NextTokenSpec(), None, "causal", None
        samplers, conditioning = ["left_to_right"], ["none"]
    else:
        objective, process, attention, samplers, block = draw(denoising())
        conditioning = ["none", "adaln_zero", "adaln_bounded"] if block is None else ["none"]
    text = draw(data())
    if block is not None:
        text = text.model_copy(update={"length": block * draw(st.integers(2, 100))})
    heads = draw(st.integers(1, 16))
    return Recipe(
        name=draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)),
        description=draw(st.text(max_size=40)),
        seed=draw(st.integers(0, 2**63 - 1)),
        device=draw(st.sampled_from(["auto", "cpu", "cuda", "cuda:3", "mps"])),
        data=text,
        tokenizer=draw(OPEN_TOKENIZERS if text.streaming else TOKENIZERS),
        process=process,
        objective=objective,
        network=draw(
            networks(
                width=heads * 2 * draw(st.integers(1, 64)),
                heads=heads,
                attention=attention,
                time_conditioning=draw(st.sampled_from(conditioning)),
            )
        ),
        training=draw(training()),
        evaluation=EvaluationSpec(rows=draw(st.none() | COUNT)),
        sampling=SamplingSpec(
            sampler=draw(st.sampled_from(samplers)), top_p=draw(st.floats(0.001, 1)), block_length=block
        ),
    )
