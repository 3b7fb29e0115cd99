import subprocess
import sys

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from recipes_strategy import recipes

from remask.config.contradictions import contradictions
from remask.config.keys import every_key
from remask.config.load import (
    dump_recipe,
    explain_keys,
    explain_recipe,
    load_recipe,
    preview_recipe,
    recipe_hash,
)
from remask.config.schema import MaskingSpec, PolynomialScheduleSpec, Recipe, UniformSpec
from remask.errors import UserError
from remask.recipes import recipe_names

KEYS = [".".join(keys) for keys in dict.fromkeys(every_key())]
ONE_FOLDER = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
    max_examples=20,
)


def errors_of(name, *overrides):
    with pytest.raises(UserError) as caught:
        load_recipe(name, overrides)
    return str(caught.value).split("\n")


# --- what remask brings along -----------------------------------------------------------------------------


def test_the_recipes_of_the_issue_are_there():
    assert {"quickstart", "mdlm", "ar", "mdlm-file", "ar-file"} <= set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads_under_its_own_name_and_describes_itself(name):
    recipe = preview_recipe(name)
    assert recipe.name == name
    assert len(recipe.description) > 20


@pytest.mark.parametrize("suffix", ["", "-file"])
def test_ar_and_mdlm_differ_only_in_what_makes_one_autoregressive(suffix):
    mdlm, ar = (preview_recipe(name + suffix).model_dump() for name in ("mdlm", "ar"))
    for recipe in (mdlm, ar):
        for key in ("name", "description", "process", "objective", "sampling"):
            del recipe[key]
        del recipe["network"]["attention"]
    assert mdlm == ar


@pytest.mark.parametrize("name", ["mdlm", "ar"])
def test_a_file_recipe_is_its_sibling_with_the_text_left_open(name):
    given = load_recipe(f"{name}-file", [f"name={name}", "data.source=python-docs", "description=same"])
    assert given == load_recipe(name, ["description=same"])


@pytest.mark.parametrize("name", ["mdlm-file", "ar-file"])
def test_a_file_recipe_without_its_text_says_how_to_give_it(name):
    (line,) = errors_of(name)
    assert line.startswith("data.source: not given")
    assert line.endswith("give data.source=VALUE")


def test_any_recipe_takes_another_text():
    assert load_recipe("mdlm", ["data.source=poems.txt"]).data.source == "poems.txt"


# --- overrides --------------------------------------------------------------------------------------------


def test_numbers_in_scientific_notation_are_numbers():
    recipe = load_recipe("mdlm", ["training.learning_rate=1e-3", "training.steps=1e3"])
    assert recipe.training.learning_rate == 0.001
    assert recipe.training.steps == 1000
    assert isinstance(recipe.training.steps, int)


def test_the_last_override_of_a_key_wins():
    assert load_recipe("mdlm", ["seed=1", "seed=2"]).seed == 2


def test_a_list_is_given_in_brackets():
    assert load_recipe("mdlm", ["training.betas=[0.8, 0.9]"]).training.betas == (0.8, 0.9)


def test_another_kind_drops_the_keys_that_no_longer_fit():
    recipe = load_recipe("mdlm", ["tokenizer.kind=byte"])
    assert recipe.tokenizer.model_dump() == {"kind": "byte"}


def test_another_kind_keeps_the_keys_that_fit():
    base = ["process.schedule.kind=polynomial", "process.schedule.power=3"]
    recipe = load_recipe("mdlm", [*base, "process.kind=uniform"])
    assert recipe.process == UniformSpec(schedule=PolynomialScheduleSpec(power=3))


def test_keys_of_the_new_kind_may_come_before_it():
    recipe = load_recipe("quickstart", ["tokenizer.vocab_size=300", "tokenizer.kind=bpe"])
    assert recipe.tokenizer.model_dump() == {"kind": "bpe", "vocab_size": 300, "lowercase": False}


def test_keys_given_for_the_wrong_kind_are_not_dropped_in_silence():
    (line,) = errors_of("mdlm", "tokenizer.vocab_size=300", "tokenizer.kind=byte")
    assert line == "tokenizer.vocab_size: unknown key; kind byte has none, kind bpe has it. Valid: kind."


def test_diffusion_becomes_autoregressive_from_the_command_line():
    changes = ["process=null", "objective.kind=next_token", "network.attention=causal"]
    recipe = load_recipe("mdlm", [*changes, "sampling.sampler=left_to_right"])
    assert recipe.process is None


def test_autoregressive_becomes_diffusion_from_the_command_line():
    changes = ["process.kind=masking", "objective.kind=likelihood_bound", "network.attention=bidirectional"]
    recipe = load_recipe("ar", [*changes, "sampling.sampler=ancestral"])
    assert recipe.process == MaskingSpec()


@pytest.mark.parametrize("text", ["1e5", "007", "true", "a #b", "a: b", "@x", "[", "%", "-", "12:30"])
def test_text_stands_for_itself_where_text_is_wanted(text):
    assert load_recipe("mdlm", [f"data.source={text}"]).data.source == text


def test_quoted_text_may_hold_escapes():
    assert load_recipe("mdlm", ['data.separator="\\n\\n"']).data.separator == "\n\n"


def test_a_section_that_a_recipe_leaves_out_takes_its_default_kind(tmp_path):
    file = tmp_path / "small.yaml"
    file.write_text("name: small\ndata: {source: python-docs}\n")
    recipe = load_recipe(str(file), ["process.schedule.kind=polynomial", "process.schedule.power=4"])
    assert recipe.process == MaskingSpec(schedule=PolynomialScheduleSpec(power=4))


def test_a_recipe_cannot_be_changed():
    recipe = load_recipe("mdlm")
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 3


# --- what is wrong, in plain words ------------------------------------------------------------------------

WHOLE = "a whole number at least 1"
ROOT_KEYS = (
    "Valid: data, description, device, evaluation, health, name, network, objective, process, sampling, "
    "seed, tokenizer, tracking, training."
)
WRONG = [
    ("training.steps=abc", f"training.steps: 'abc' given; valid: {WHOLE}"),
    ("training.steps=0", f"training.steps: 0 given; valid: {WHOLE}"),
    ("training.steps=1.5", f"training.steps: 1.5 given; valid: {WHOLE}"),
    ("training.steps=true", f"training.steps: true given; valid: {WHOLE}"),
    ("training.steps=null", f"training.steps: null given; valid: {WHOLE}"),
    ("training.steps='60'", f"training.steps: '60' given; valid: {WHOLE}"),
    ("training.steps=[1, 2]", f"training.steps: [1, 2] given; valid: {WHOLE}"),
    ("training.steps=1e30", f"training.steps: 1e+30 given, which does not fit 64 bits; valid: {WHOLE}"),
    ("training.steps", "'training.steps' given; valid: key=value, e.g. training.steps=100"),
    ("=3", "'=3' given; valid: key=value, e.g. training.steps=100"),
    ("training..steps=3", "'training..steps=3' given; valid: key=value, e.g. training.steps=100"),
    (
        "training.steps.x=1",
        f"training.steps.x: training.steps has no keys below it; give training.steps=1 (valid: {WHOLE})",
    ),
    ("steps=3", f"steps: unknown key; did you mean training.steps or sampling.steps? {ROOT_KEYS}"),
    ("traning.steps=3", f"traning: unknown key; did you mean 'training'? {ROOT_KEYS}"),
    ("qqqq=3", f"qqqq: unknown key; {ROOT_KEYS}"),
    ("a\tb=3", "'a\\tb=3' given; valid: key=value, e.g. training.steps=100"),
    (
        "evaluation.drws=3",
        "evaluation.drws: unknown key; did you mean 'draws'? Valid: batch_size, checker, draws, rows, split.",
    ),
    ("training.learning_rate=-1", "training.learning_rate: -1 given; valid: a number above 0 and at most 10"),
    (
        "training.learning_rate=.nan",
        "training.learning_rate: NaN given; valid: a number above 0 and at most 10",
    ),
    ("training.clip=.inf", "training.clip: Infinity given; valid: a number above 0"),
    (
        "training.decay=cosin",
        "training.decay: 'cosin' given; did you mean 'cosine'? Valid: constant, cosine, linear, wsd.",
    ),
    ("network.head=both", "network.head: 'both' given; valid: tied, untied."),
    (
        "training.betas=0.9,0.95",
        "training.betas: '0.9,0.95' given; valid: a list of 2 numbers, each at least 0 and below 1",
    ),
    (
        "training.betas=[0.9, 1, 1]",
        "training.betas: [0.9, 1, 1] given; valid: a list of 2 numbers, each at least 0 and below 1",
    ),
    (
        "training.betas=[0.9",
        "training.betas: '[0.9' given, which is not YAML: while parsing a flow sequence, expected "
        "',' or ']', but got "
        "'<stream end>' (line 1, column 5); valid: a list of 2 numbers, each at least 0 and below 1",
    ),
    ("data.streaming=yes", "data.streaming: 'yes' given; valid: true or false"),
    (
        "data.mixture=other.txt",
        "data.mixture: 'other.txt' given; valid: a list of {source: …, weight: …, text_key: …, separator: …}",
    ),
    (
        "data.mixture=[a.txt]",
        'data.mixture: ["a.txt"] given, and entry 1 is no mapping; valid: a list of {source: …, weight: …, '
        "text_key: …, separator: …}",
    ),
    (
        "data.mixture=[{source: a}, {sorce: b}]",
        'data.mixture: [{"source": "a"}, {"sorce": "b"}] given, and entry 2 has an unknown key sorce; did you mean '
        "source? It may have source, weight, text_key, prompt_key, response_key, separator, config, max_documents; "
        "valid: a list of {source: …, weight: …, text_key: …, separator: …}",
    ),
    (
        "data.mixture=[{weight: 2}]",
        'data.mixture: [{"weight": 2}] given, and in entry 1 the key source is missing; valid: a list of {source: …, '
        "weight: …, text_key: …, separator: …}",
    ),
    (
        "data.mixture=[{source: a, weight: 0}]",
        'data.mixture: [{"source": "a", "weight": 0}] given, and in entry 1 the key weight is wrong (input should be '
        "greater than 0); valid: a list of {source: …, weight: …, text_key: …, separator: …}",
    ),
    ("data.source=", "data.source: null given; valid: text, not empty"),
    ("data.length=1", "data.length: 1 given; valid: a whole number at least 2"),
    ("device=gpu", "device: 'gpu' given; valid: auto, cpu, cuda, cuda:N or mps"),
    (
        "name=a/b",
        "name: 'a/b' given; valid: 1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit",
    ),
    ("seed=-1", "seed: -1 given; valid: a whole number at least 0"),
    ("sampling.top_p=0", "sampling.top_p: 0 given; valid: a number above 0 and at most 1"),
    (
        "training.micro_batch_size=0",
        "training.micro_batch_size: 0 given; valid: a whole number at least 1, or null",
    ),
    (
        "tokenizer.kind=bte",
        "tokenizer.kind: 'bte' given; did you mean 'byte'? Valid: bpe, byte, character, huggingface.",
    ),
    ("process.kind=3", "process.kind: 3 given; valid: gaussian, hybrid, masking, uniform."),
    (
        "network.kind=mlp",
        "network.kind: 'mlp' given; valid: concept, concept_prior, pretrained, reversible, text_autoencoder, thought, "
        "thought_pretrained, transformer.",
    ),
    (
        "process.schedule.kind=sqrt",
        "process.schedule.kind: 'sqrt' given; valid: cosine, linear, log_linear, polynomial.",
    ),
    ("tokenizer={vocab_size: 300}", "tokenizer.kind: not given; valid: bpe, byte, character, huggingface"),
    ("tokenizer=byte", "tokenizer: 'byte' given, but it is a section; give tokenizer.kind=byte"),
    (
        "tokenizer=null",
        "tokenizer: null given, but it is a section; give tokenizer.kind=KIND, with KIND one of "
        "bpe, byte, character, "
        "huggingface",
    ),
    (
        "evaluation=3",
        "evaluation: 3 given, but it is a section; give its keys, evaluation.KEY=VALUE, with KEY "
        "one of batch_size, checker, draws, rows, split",
    ),
    (
        "tokenizer.kind=huggingface",
        "tokenizer.name: not given; valid: its name on the Hub, or a local folder; give tokenizer.name=VALUE",
    ),
    (
        "process.uniform_share=0.3",
        "process.uniform_share: unknown key; kind masking has none, kind hybrid has it. Valid: kind, schedule.",
    ),
    (
        "process=null",
        "process: null given, but objective likelihood_bound needs noise; give "
        "process.kind=masking (or uniform, "
        "hybrid), or objective.kind=next_token",
    ),
    (
        "network.attention=causal",
        "network.attention: causal given, but objective likelihood_bound predicts from both sides; "
        "give network.attention=bidirectional",
    ),
    (
        "sampling.sampler=left_to_right",
        "sampling.sampler: left_to_right given, but only objective next_token is sampled so; "
        "give sampling.sampler=ancestral (or confidence)",
    ),
    (
        "network.width=250",
        "network.width: 250 given, but it is no multiple of network.heads=4; give "
        "network.width=248, or another "
        "network.heads",
    ),
    (
        "network.width=12",
        "network.width: 12 given, but each of network.heads=4 heads gets an odd 3 (rotary "
        "positions need pairs); "
        "give network.width=8, or another network.heads",
    ),
    (
        "training.micro_batch_size=5",
        "training.micro_batch_size: 5 given, but it does not divide training.batch_size=32; "
        "give training.micro_batch_size=4",
    ),
    (
        "data.config=en",
        "data.config: en given, but data.source=python-docs is no Hugging Face dataset; give "
        "data.config=null, or "
        "data.source=hf:NAME",
    ),
]


@pytest.mark.parametrize(("override", "line"), WRONG, ids=[override for override, _ in WRONG])
def test_a_wrong_override_gets_one_readable_line(override, line):
    frozen = ["training.steps=2000", "training.batch_size=32", "network.heads=4"]
    assert errors_of("mdlm", *frozen, override) == [line]


def test_a_curriculum_starts_above_the_end_of_the_bound():
    late = ("objective.t_min=0.3", "objective.curriculum_start=0.25")
    (line,) = errors_of("mdlm", *late, "objective.curriculum_ratio=0.5")
    assert line.startswith("objective.curriculum_start: 0.25 given, but a curriculum starts above objective.t_min=0.3")
    assert load_recipe("mdlm", late).objective.t_min == 0.3, "without a curriculum its start is not read"


def test_confidence_sampling_needs_masks():
    (line,) = errors_of("mdlm", "process.kind=uniform", "sampling.sampler=confidence")
    assert line.startswith("sampling.sampler: confidence given, but it needs masked tokens and process.kind is uniform")


def test_next_token_names_everything_that_does_not_fit_it():
    lines = errors_of("mdlm", "objective.kind=next_token", "network.time_conditioning=adaln_zero")
    starts = [
        "process: masking",
        "network.attention: bidir",
        "network.time_cond",
        "sampling.sampler: ancestral",
    ]
    assert len(lines) == len(starts)
    assert all(line.startswith(start) for line, start in zip(lines, starts, strict=True))


def test_all_mistakes_are_told_at_once():
    lines = errors_of("mdlm", "trainng.steps=3", "training.decay=x", "network.width=250", "seed", "process.kind=huh")
    assert [line.split(":")[0] for line in lines] == [
        "'seed' given; valid",
        "process.kind",
        "training.decay",
        "trainng",
        "network.width",
    ]


def test_a_contradiction_that_rests_on_a_wrong_key_is_left_out():
    assert len(errors_of("mdlm", "network.width=250", "network.heads=abc")) == 1
    lines = errors_of("mdlm", "objective.kind=next_token", "network.atention=causal")
    assert not any(line.startswith("network.attention") for line in lines)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("mdml", "recipe 'mdml': unknown; did you mean 'mdlm'? Valid: "),
        ("zzz", "recipe 'zzz': unknown; Valid: "),
        ("", "recipe '': unknown; "),
        ("x\ny", "recipe 'x\\ny': unknown; "),
        ("a\x00b", "recipe 'a\\x00b': unknown; "),
        (
            "nowhere/x.yaml",
            "recipe nowhere/x.yaml: no such file; give a YAML file, or one of the recipes ar, ",
        ),
        ("x\x00.yaml", "recipe x\\x00.yaml: "),
    ],
)
def test_an_unknown_recipe_is_named_with_the_valid_ones(name, line):
    (found,) = errors_of(name)
    assert found.startswith(line)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty; a recipe is a list of 'key: value' lines"),
        (b"# nothing\n", "empty; "),
        (b"just words", "a text, not a mapping; "),
        (b"- a\n- b", "a list, not a mapping; "),
        (b"name: [", "not readable as YAML: while parsing a flow node, "),
        (b"name: x\nname: y", "not readable as YAML: the key name is given twice (line 2, column 1)"),
        (b"name: \xff", "byte 6 is not UTF-8; save the recipe as UTF-8 text"),
        (b"#" * 1_000_001, "not readable as YAML: more than 1,000,000 bytes, too large for a recipe"),
    ],
)
def test_a_file_that_is_no_recipe_gets_one_line(tmp_path, content, reason):
    file = tmp_path / "wrong.yaml"
    file.write_bytes(content)
    (line,) = errors_of(str(file))
    assert line.startswith(f"recipe {file}: {reason}")


def test_a_folder_is_no_recipe(tmp_path):
    (line,) = errors_of(f"{tmp_path}/")
    assert "Is a directory" in line


def test_a_mistake_in_a_file_names_the_file_and_one_on_the_command_line_does_not(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("name: own\ndata: {source: python-docs, lenght: 3}\ntraining: {steps: 10}\n1: 2\n")
    lines = errors_of(str(file), "training.steps=0")
    assert any(line.startswith(f"{file}: data.lenght: unknown key; did you mean 'length'?") for line in lines)
    assert any(line.startswith(f"{file}: 1: unknown key") for line in lines)
    assert "training.steps: 0 given; valid: a whole number at least 1" in lines


def test_a_file_without_data_says_what_to_give(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("seed: 1\n")
    lines = errors_of(str(file))
    assert [line.split(":")[1] for line in lines] == [" name", " data.source"]


def test_a_file_in_this_folder_needs_no_ending(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").write_text("name: own\ndata: {source: python-docs}\n")
    assert load_recipe("own").name == "own"


# --- properties -------------------------------------------------------------------------------------------


@ONE_FOLDER
@given(recipe=recipes())
def test_a_written_recipe_reads_back_identically(recipe, tmp_path):
    file = tmp_path / "recipe.yaml"
    for text in (dump_recipe(recipe), explain_recipe(recipe)):
        file.write_bytes(text.encode())
        again = load_recipe(str(file))
        assert again == recipe
        assert recipe_hash(again) == recipe_hash(recipe)
    assert list(contradictions(recipe)) == []


def check(name, overrides):
    lines = []
    try:
        recipe = load_recipe(name, overrides)
    except UserError as error:
        lines = str(error).split("\n")
    else:
        assert isinstance(recipe, Recipe)
    assert all(line.isprintable() and line for line in lines)
    assert not any("pydantic" in line or "Traceback" in line for line in lines)
    assert len(lines) == len(set(lines))


VALUES = (
    st.sampled_from(["0", "1", "-1", "3.0", "64", "1e400", "null", "true", ".nan", "", "byte", "hybrid", "causal", "'"])
    | st.sampled_from(
        [
            "next_token",
            "confidence",
            "[]",
            "[0.1, 0.2]",
            "{}",
            "{kind: byte}",
            "{kind: {}}",
            "{kind: [1]}",
            "{1: 2}",
        ]
    )
    | st.sampled_from(["9" * 25, "9" * 5000, '"\\ud800"'])
)
OVERRIDES = st.lists(
    st.builds(
        lambda key, tail, value: f"{key}{tail}={value}",
        st.sampled_from(KEYS) | st.text(max_size=8),
        st.sampled_from(["", "", "", "", ".kind", ".x", "."]),
        VALUES | st.text(max_size=12),
    )
    | st.text(max_size=12),
    max_size=6,
)


@settings(deadline=None, max_examples=80)
@given(name=st.sampled_from(recipe_names()), overrides=OVERRIDES)
@example(name="mdlm", overrides=["network.width=" + "9" * 18, "network.heads=7"])
@example(name="mdlm", overrides=["training.batch_size=" + "9" * 18, "training.micro_batch_size=" + "7" * 17])
@example(name="mdlm", overrides=["data.source=\udcff"])
@example(name="mdlm", overrides=["data={1: 2, source: x}", "data.1=3"])
@example(name="mdlm", overrides=["process={kind: {a: 1}}", "process.kind.a=3", "process.kind=[1]"])
def test_random_overrides_give_a_recipe_or_one_line_a_problem(name, overrides):
    check(name, overrides)


NESTED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([key.split(".")[-1] for key in KEYS]) | st.text(max_size=3), inner, max_size=5
        )
    ),
    max_leaves=15,
)


@ONE_FOLDER
@given(data=st.dictionaries(st.sampled_from(list(Recipe.model_fields)), NESTED), overrides=OVERRIDES)
def test_random_files_give_a_recipe_or_one_line_a_problem(data, overrides, tmp_path):
    from remask.config.yaml_text import to_yaml

    file = tmp_path / "random.yaml"
    file.write_bytes(to_yaml(data).encode())
    check(str(file), overrides)


@ONE_FOLDER
@given(content=st.binary(max_size=60))
def test_random_bytes_give_one_line(content, tmp_path):
    file = tmp_path / "random.yaml"
    file.write_bytes(content)
    check(str(file), [])


# --- identity and explanation -----------------------------------------------------------------------------


def test_the_hash_ignores_name_and_description_and_nothing_else():
    base = recipe_hash(load_recipe("mdlm"))
    assert recipe_hash(load_recipe("mdlm", ["name=other", "description=other"])) == base
    for change in ("seed=2", "data.length=64", "process.kind=uniform", "training.clip=2", "sampling.count=9"):
        assert recipe_hash(load_recipe("mdlm", [change])) != base


def test_the_hash_does_not_depend_on_how_a_number_is_written():
    short, long = (recipe_hash(load_recipe("mdlm", [f"training.learning_rate={x}"])) for x in ("1e-3", "0.0010"))
    assert short == long


@pytest.mark.parametrize("name", recipe_names())
def test_every_key_of_every_recipe_is_explained(name):
    lines = explain_recipe(preview_recipe(name)).splitlines()
    assert all(len(line.partition("  # ")[2]) > 3 for line in lines)
    for meaning in explain_keys(preview_recipe(name)).values():
        assert meaning["description"]
        assert meaning["valid"]


def test_reading_a_recipe_loads_neither_torch_nor_numpy():
    code = (
        "import sys; from remask.config.load import load_recipe; load_recipe('mdlm', ['seed=3']);"
        "print(sorted({'torch', 'transformers', 'numpy', 'tokenizers'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
