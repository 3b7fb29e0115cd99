"""Mistakes are answered in a line each, with exit code 2, and leave nothing behind."""

import gzip
import json

import pytest
from command import BYTES, newest, refused, remask, run_folders, succeeds, write_text

FILE = ["mdlm-file", *BYTES]


@pytest.fixture
def texts(tmp_path, home):
    """Texts of every wrong kind, in the working folder."""
    write_text(tmp_path / "good.txt")
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "blank.txt").write_text(" \n\n\t\n")
    (tmp_path / "latin.txt").write_bytes("café ".encode("latin-1") * 100)
    (tmp_path / "utf16.txt").write_text("hello " * 100, encoding="utf-16")
    (tmp_path / "short.txt").write_text("abc")
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(b"hello " * 100)[:-12])
    (tmp_path / "key.jsonl").write_text('{"body": "hello"}\n')
    (tmp_path / "cut.jsonl").write_text('{"text": "hello"}\n{"text": "hel')
    (tmp_path / "text.pdf").write_text("hello")
    (tmp_path / "list.yaml").write_text("- a\n- b\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text("{")
    return tmp_path


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("missing.txt", ["missing.txt", "neither a file", ".jsonl"]),
        ("empty.txt", ["empty.txt", "empty"]),
        ("blank.txt", ["blank.txt", "empty"]),
        ("latin.txt", ["latin.txt", "not UTF-8", "0xe9 at offset 3", "iconv"]),
        ("utf16.txt", ["utf16.txt", "not UTF-8", "offset 0"]),
        ("short.txt", ["4 tokens", "one row of 16", "data.length"]),
        ("cut.txt.gz", ["cut.txt.gz", "truncated"]),
        ("key.jsonl", ["line 1", "no key 'text'", "body", "data.text_key"]),
        ("cut.jsonl", ["line 2", "not JSON"]),
        ("text.pdf", ["text.pdf", ".txt"]),
        ("folder", ["folder", "no file", ".txt"]),
        ("python-dosc", ["did you mean 'python-docs'"]),
    ],
)
def test_a_text_that_cannot_be_used_is_one_line(texts, home, source, said):
    message = refused("train", *FILE, f"data.source={source}")
    for words in said:
        assert words in message
    assert run_folders(home) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["quikstart"], ["did you mean 'quickstart'", "mdlm-file"]),
        (["no-such.yaml"], ["no-such.yaml", "no such file"]),
        (["list.yaml"], ["list.yaml", "not a mapping"]),
        (["mdlm-file"], ["data.source: not given", "data.source=VALUE"]),
        (["quickstart", "trainign.steps=3"], ["trainign: unknown key", "did you mean 'training'"]),
        (["quickstart", "training.stps=3"], ["training.stps", "did you mean 'steps'"]),
        (["quickstart", "training.steps=0"], ["training.steps: 0 given", "at least 1"]),
        (["quickstart", "training.steps=ten"], ["training.steps: 'ten' given", "whole number"]),
        (["quickstart", "tokenizer.kind=wordpiece"], ["'wordpiece' given", "bpe, byte, character, huggingface"]),
        (["quickstart", "device=gpu"], ["device: 'gpu' given", "cuda:N"]),
        (["quickstart", "device=cuda:77"], ["device=cuda:77", "Valid here: auto, cpu"]),
        (["quickstart", "training.steps"], ["'training.steps' is not KEY=VALUE"]),
        (["quickstart", "mdlm"], ["'mdlm' is not KEY=VALUE"]),
        (["quickstart", "training.micro_batch_size=7"], ["does not divide", "training.micro_batch_size="]),
        ([*FILE, "data.source=good.txt", "sampling.length=17"], ["length 17", "16"]),
        ([*FILE, "data.source=good.txt", "data.validation=good.txt"], ["both source and validation"]),
        ([*FILE, "data.source=good.txt", "data.validation=gone.txt"], ["gone.txt"]),
        ([*FILE, "data.source=good.txt", "process.kind=uniform", "sampling.sampler=confidence"], ["ancestral"]),
        ([*FILE, "data.source=good.txt", "tokenizer.kind=huggingface", "tokenizer.name=./gone"], ["'./gone'"]),
        (
            [*FILE, "data.source=good.txt", "tokenizer.kind=huggingface", "tokenizer.name=./folder"],
            ["'./folder'", "no tokenizer.json"],
        ),
        (
            [*FILE, "data.source=good.txt", "tokenizer.kind=huggingface", "tokenizer.name=./tokenizer"],
            ["'./tokenizer'", "cannot be read"],
        ),
        (["thought-naive", "objective.t_min=0.9999"], ["objective.t_min=0.9999", "below 0.99", "no time is left"]),
        (["concept-autoencoder", "network.latent_width=2"], ["network.latent_width: 2 given", "at least 3"]),
        (["--resume", "nothing"], ["no run 'nothing'", "remask train"]),
        (["--resume", "last", "training.steps=9"], ["training.steps=9", "without --resume"]),
        (["--stps", "3"], ["remask train has no option --stps", "--resume"]),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(texts, home, arguments, said):
    message = refused("train", *arguments)
    for words in said:
        assert words in message
    assert run_folders(home) == []


def test_fp16_without_a_gpu_is_refused_with_what_the_device_has(texts, home):
    message = refused("train", *FILE, "data.source=good.txt", "device=cpu", "training.precision=fp16")
    assert "Valid: float32, bf16" in message
    assert run_folders(home) == []


def test_every_mistake_has_a_line_of_its_own(home):
    mistakes = ["seed=-1", "device=gpu", "network.width=abc", "training.stps=3"]
    message = refused("train", "quickstart", *mistakes, lines=len(mistakes))
    for key in ("seed", "device", "network.width", "training.stps"):
        assert f"remask: {key}" in message


def test_an_unknown_command_is_one_line_with_those_there_are(home):
    message = refused("trian")
    assert "did you mean 'train'" in message
    assert "evaluate" in message
    assert "remask --help" in message


def test_no_command_at_all_prints_the_help_as_it_is_meant_to_be_read(home):
    done = succeeds()
    assert "evaluate" in done.out
    assert len(done.out.splitlines()) > 10


@pytest.mark.parametrize("command", ["sample", "evaluate", "health", "report", "show"])
def test_an_unknown_run_is_one_line_for_every_command(trained, command):
    message = refused(command, "mdlm-fiel")
    assert "no run 'mdlm-fiel'" in message
    assert newest(trained)[0].id in message


@pytest.mark.parametrize("command", ["sample", "evaluate", "health", "report", "show"])
def test_a_home_without_runs_is_one_line_that_says_how_to_begin(home, command):
    assert "remask train" in refused(command, "last")
    assert not home.exists()


@pytest.mark.parametrize("command", ["sample", "evaluate"])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.safetensors", "damaged"),
        ("config.json", "damaged"),
        ("tokenizer/tokenizer_config.json", "not JSON"),
    ],
)
def test_a_model_with_a_file_cut_short_is_one_line(trained, command, name, said):
    _, folder = newest(trained)
    path = folder.model_path / name
    path.write_bytes(path.read_bytes()[:-20])
    message = refused(command, "last")
    assert said in message
    assert str(folder.model_path) in message


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer/tokenizer_config.json", ""])
def test_a_model_with_a_file_missing_is_one_line(trained, name):
    _, folder = newest(trained)
    path = folder.model_path / name
    path.rename(path.with_name("elsewhere"))
    assert "model" in refused("sample", "last")


def test_a_model_of_another_vocabulary_is_one_line(trained):
    _, folder = newest(trained)
    config = folder.model_path / "tokenizer" / "tokenizer_config.json"
    from remask.tokenizers import character_tokenizer

    character_tokenizer(["abcdef"]).save(config.parent)
    assert "not the one the model was trained with" in refused("sample", "last")
    record = json.loads((folder.model_path / "config.json").read_text())
    record["tokenizer"] = json.loads(config.read_text())["fingerprint"]
    (folder.model_path / "config.json").write_text(json.dumps(record))
    assert "another vocabulary" in refused("sample", "last")


@pytest.mark.parametrize("command", [["runs"], ["sample", "last"], ["evaluate", "last"], ["train", "--resume", "last"]])
def test_a_damaged_registry_is_one_line_that_says_how_to_repair_it(trained, command):
    (trained / "registry.sqlite").write_bytes(b"junk" * 1000)
    assert "remask runs --rebuild" in refused(*command)
    succeeds("runs", "--rebuild")
    succeeds("sample", "last", "--json")


def test_a_registry_that_was_deleted_is_read_from_the_run_folders(trained):
    (trained / "registry.sqlite").unlink()
    assert len(succeeds("runs", "--json").objects) == 1
    succeeds("sample", "last", "--json")


@pytest.mark.parametrize("content", [None, "", "junk: [", "- a\n"])
@pytest.mark.parametrize("command", ["sample", "evaluate"])
def test_a_damaged_recipe_in_a_run_folder_is_one_line_that_names_it(trained, command, content):
    _, folder = newest(trained)
    folder.recipe_path.unlink()
    if content is not None:
        folder.recipe_path.write_text(content)
    assert str(folder.recipe_path) in refused(command, "last")


def test_a_run_without_a_finished_model_is_one_line_that_says_to_resume(trained):
    _, folder = newest(trained)
    folder.model_path.rename(folder.path / "gone")
    assert "resume" in refused("sample", "last")


def test_a_folder_that_is_no_run_is_one_line(trained, tmp_path):
    (tmp_path / "folder").mkdir()
    assert "not a run's folder" in refused("sample", tmp_path / "folder")


def test_logs_cut_short_by_a_kill_are_read_as_far_as_they_go(trained):
    _, folder = newest(trained)
    for path in (folder.metrics_path, folder.samples_path):
        path.write_bytes(path.read_bytes() + b'{"kind": "train", "st')
    succeeds("health", "last")
    succeeds("report", "last")
    succeeds("sample", "last", "--json")


def test_an_unexpected_failure_is_not_hidden(home, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("an assumption failed")

    monkeypatch.setattr("remask.config.load.load_recipe", broken)
    with pytest.raises(RuntimeError, match="an assumption failed"):
        remask("train", "quickstart")


def test_doctor_hands_its_exit_code_to_the_shell(home, monkeypatch):
    from remask.cli.checks import Check

    problem = Check(name="disk", status="problem", detail="full", remedy="free some")
    monkeypatch.setattr("remask.cli.checks.checks", lambda: [problem])
    assert remask("doctor").code == 1
