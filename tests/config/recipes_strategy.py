"""Random recipes that agree with themselves, for property tests."""

from hypothesis import strategies as st

from remask.config.schema import (
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
    MaskingSpec,
    NextTokenSpec,
    PolynomialScheduleSpec,
    Recipe,
    SamplingSpec,
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
TOKENIZERS = st.one_of(
    st.builds(ByteTokenizerSpec),
    st.builds(CharacterTokenizerSpec),
    st.builds(BPETokenizerSpec, vocab_size=st.integers(258, 2**20)),
    st.builds(HuggingFaceTokenizerSpec, name=TEXT),
)


@st.composite
def data(draw):
    shared = {
        "length": draw(st.integers(2, 10**5)),
        "text_key": draw(TEXT),
        "separator": draw(st.none() | TEXT),
    }
    if draw(st.booleans()):
        config, streaming = draw(st.none() | TEXT), draw(st.booleans())
        return DataSpec(source="hf:" + draw(TEXT), config=config, streaming=streaming, **shared)
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


@st.composite
def recipes(draw):
    if draw(st.booleans()):
        objective, process, attention = NextTokenSpec(), None, "causal"
        samplers, conditioning = ["left_to_right"], ["none"]
    else:
        objective, attention = LikelihoodBoundSpec(t_min=draw(OPEN_SHARE)), "bidirectional"
        schedule = draw(SCHEDULES)
        process = draw(
            st.sampled_from([MaskingSpec(schedule=schedule), UniformSpec(schedule=schedule)])
            | st.builds(HybridSpec, uniform_share=OPEN_SHARE, schedule=st.just(schedule))
        )
        samplers = ["ancestral", "confidence"] if isinstance(process, MaskingSpec) else ["ancestral"]
        conditioning = ["none", "adaln_zero"]
    heads = draw(st.integers(1, 16))
    return Recipe(
        name=draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)),
        description=draw(st.text(max_size=40)),
        seed=draw(st.integers(0, 2**63 - 1)),
        device=draw(st.sampled_from(["auto", "cpu", "cuda", "cuda:3", "mps"])),
        data=draw(data()),
        tokenizer=draw(TOKENIZERS),
        process=process,
        objective=objective,
        network=TransformerSpec(
            width=heads * 2 * draw(st.integers(1, 64)),
            heads=heads,
            attention=attention,
            time_conditioning=draw(st.sampled_from(conditioning)),
        ),
        training=draw(training()),
        evaluation=EvaluationSpec(rows=draw(st.none() | COUNT)),
        sampling=SamplingSpec(sampler=draw(st.sampled_from(samplers)), top_p=draw(st.floats(0.001, 1))),
    )
