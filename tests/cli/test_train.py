import gzip
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command import BYTES, TINY, newest, refused, remask, run_folders, succeeds, weights, write_text

from remask.book import RunBook
from remask.cli.progress import PlainWatcher
from remask.config.load import load_recipe
from remask.materials import gather
from remask.runs import RunFolder
from remask.runs.lineage import names_run

# each kind of noise and each schedule; test_processes.py and test_likelihood_bound.py cross them
NOISES = [("masking", "cosine"), ("uniform", "polynomial"), ("hybrid", "log_linear"), ("uniform", "linear")]


@pytest.mark.parametrize("recipe", ["mdlm", "ar"])  # test_every_recipe.py trains them all
def test_a_recipe_trains_saves_samples_evaluates_and_reports(recipe, home, text):
    succeeds("train", recipe, *TINY, f"data.source={text}", "tokenizer.vocab_size=280")
    record, folder = newest(home)
    assert record.status == "finished"
    assert record.step == 3
    assert record.verdict
    for path in ("recipe.yaml", "run.json", "metrics.jsonl", "samples.jsonl", "trajectory.json", "model/config.json"):
        assert (folder.path / path).is_file(), path
    assert [path.name for path in folder.checkpoints_path.iterdir()] == ["step-3"]
    (line,) = succeeds("sample", "last", "--json").objects
    assert len(line["ids"]) == 16
    figures = succeeds("evaluate", "last", "--count", 2, "--json").objects
    assert "bits_per_byte" in [figure["name"] for figure in figures]
    assert all(figure["trivial"] for figure in figures)
    page = Path(succeeds("report", "last").out.strip())
    assert record.id in page.read_text()
    assert succeeds("health", "last").out.startswith(record.id)


@pytest.mark.parametrize(("kind", "schedule"), NOISES)
def test_every_noise_and_every_schedule_trains(kind, schedule, home, text):
    noise = [f"process.kind={kind}", f"process.schedule.kind={schedule}"]
    succeeds("train", "mdlm-file", *BYTES, *noise, f"data.source={text}")
    record, _ = newest(home)
    assert record.status == "finished"
    assert 0 < record.headline["bits_per_byte"] < 50


@pytest.mark.parametrize(
    "options",
    [
        ["network.time_conditioning=adaln_zero", "network.dropout=0.1", "training.optimizer=adamw"],
        ["network.head=tied", "training.precision=bf16"],
        ["training.ema_decay=0", "tokenizer.kind=character", "sampling.sampler=confidence"],
    ],
    ids=" ".join,
)
def test_every_option_trains_and_its_model_loads_again(options, home, text):
    succeeds("train", "mdlm-file", *BYTES, *options, f"data.source={text}")
    (line,) = succeeds("sample", "last", "--json").objects
    _, folder = newest(home)
    assert line["text"] == folder.samples()[0]["text"], "the saved model draws what the run drew"


def test_micro_batches_change_only_rounding(home, text):
    losses = []
    for micro in (4, 1):
        succeeds("train", "mdlm-file", *BYTES, f"training.micro_batch_size={micro}", f"data.source={text}")
        losses.append(next(line["loss"] for line in newest(home)[1].metrics() if line["kind"] == "train"))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def write_sources(folder: Path, text: Path) -> None:
    words = text.read_text()
    (folder / "t.txt.gz").write_bytes(gzip.compress(words.encode()))
    documents = words.split("\n\n")
    (folder / "t.jsonl").write_text("".join(json.dumps({"text": document}) + "\n" for document in documents))
    (folder / "folder").mkdir()
    for number, document in enumerate(documents):
        (folder / "folder" / f"{number}.txt").write_text(document)


@pytest.mark.parametrize("source", ["t.txt.gz", "t.jsonl", "folder"])
def test_every_kind_of_source_trains(source, home, text, tmp_path):
    write_sources(tmp_path, text)
    succeeds("train", "mdlm-file", *BYTES, f"data.source={source}")
    assert newest(home)[0].status == "finished"


def test_a_parquet_source_trains(home, text, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    pyarrow = pytest.importorskip("pyarrow")
    parquet.write_table(pyarrow.table({"text": text.read_text().split("\n\n")}), tmp_path / "t.parquet")
    succeeds("train", "mdlm-file", *BYTES, "data.source=t.parquet")
    assert newest(home)[0].status == "finished"


def test_a_hugging_face_tokenizer_in_a_folder_trains_and_samples(home, text, tmp_path):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=280, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator([text.read_text()], trainer)
    PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(tmp_path / "tokenizer")
    kind = ["tokenizer.kind=huggingface", "tokenizer.name=./tokenizer"]
    succeeds("train", "mdlm-file", *TINY, *kind, f"data.source={text}")
    (line,) = succeeds("sample", "last", "--prompt", "the [MASK*3] of", "--json").objects
    assert line["text"].startswith("the ")


def test_progress_names_the_trivial_values_and_the_next_commands_on_stderr_only(home, text):
    done = succeeds("train", "mdlm-file", *BYTES, f"data.source={text}")
    assert done.out == ""
    assert "byte 2-gram" in done.err
    assert "verdict:" in done.err
    assert "remask evaluate last" in done.err


# ── stopping and going on ───────────────────────────────────────────────────────────────────────────────────────

LONGER = ["training.steps=8", "training.log_every=1", "training.checkpoint_every=100"]


def at_step(monkeypatch, step, act):
    """Calls `act` once, when the training line of that step has been logged."""
    logged = PlainWatcher.logged

    def watch(self, record):
        logged(self, record)
        if record["kind"] == "train" and record["step"] == step:
            act()

    monkeypatch.setattr(PlainWatcher, "logged", watch)


def interrupt_at(monkeypatch, step, number, *arguments):
    """Trains, and has the system send this process a signal when a step has been logged."""
    with monkeypatch.context() as patch:
        at_step(patch, step, lambda: os.kill(os.getpid(), number))
        return remask("train", *arguments)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_its_last_step_says_how_to_go_on_and_ends_as_if_never_stopped(
    number, home, text, monkeypatch
):
    arguments = ["mdlm-file", *BYTES, *LONGER, f"data.source={text}"]
    succeeds("train", *arguments)
    whole = newest(home)[1]
    done = interrupt_at(monkeypatch, 3, number, *arguments)
    record, folder = newest(home)
    assert done.code == 130
    assert record.status == "interrupted"
    assert (folder.checkpoints_path / "step-3").is_dir()
    assert f"remask train --resume {record.id}" in done.err
    assert "Traceback" not in done.err
    assert not folder.model_path.exists()
    succeeds("train", "--resume", record.id)
    assert weights(folder) == weights(whole)
    assert [line["text"] for line in folder.samples()] == [line["text"] for line in whole.samples()]
    kept = [(line["kind"], line["step"], line.get("loss")) for line in folder.metrics()]
    assert kept == [(line["kind"], line["step"], line.get("loss")) for line in whole.metrics()]


@pytest.mark.parametrize("named", ["last", "folder"])
def test_a_run_that_starts_from_the_last_one_or_a_folder_goes_on_from_the_same_model(named, home, text, monkeypatch):
    arguments = ["mdlm-file", *BYTES, *LONGER, f"data.source={text}"]
    succeeds("train", *arguments)
    first, folder = newest(home)
    model = os.path.relpath(folder.model_path)
    given = first.id if named == "last" else str(folder.model_path.resolve())
    interrupt_at(
        monkeypatch, 3, signal.SIGINT, *arguments, f"training.start_from={'last' if named == 'last' else model}"
    )
    record, folder = newest(home)
    assert load_recipe(str(folder.recipe_path)).training.start_from == given
    succeeds("train", "--resume", "last")
    record, _ = newest(home)
    assert [entry["how"] for entry in record.lineage] == ["initialised", "resumed"]
    assert names_run(record.lineage, first.id)


def test_a_run_stopped_after_its_last_step_still_ends_and_draws_no_sample_twice(home, text, monkeypatch):
    appended = RunFolder.append_sample

    def stop(self, record):
        appended(self, record)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append_sample", stop)
        assert remask("train", "mdlm-file", *BYTES, "sampling.count=2", f"data.source={text}").code == 130
    succeeds("train", "--resume", "last")
    record, folder = newest(home)
    assert record.status == "finished"
    assert len(folder.samples()) == 2


def test_what_a_run_has_cost_is_on_record_with_each_validation(home, text, monkeypatch):
    noted, note = [], RunBook.note

    def watch(self, **changes):
        noted.append(changes)
        note(self, **changes)

    monkeypatch.setattr(RunBook, "note", watch)
    succeeds("train", "mdlm-file", *BYTES, *LONGER, f"data.source={text}")
    judged = [changes for changes in noted if "headline" in changes]
    assert judged
    assert all(changes["tokens_seen"] > 0 and changes["seconds"] > 0 for changes in judged)


def test_ctrl_c_before_the_run_begins_leaves_no_run_and_no_traceback(home, text, monkeypatch):
    def interrupted(self, done, total):
        raise KeyboardInterrupt

    monkeypatch.setattr(PlainWatcher, "tokenizing", interrupted)
    write_text(home.parent / "other.txt", seed=7)
    done = remask("train", "mdlm-file", *BYTES, "data.source=other.txt")
    assert (done.code, done.err) == (130, "remask: interrupted\n")
    assert run_folders(home) == []


def test_sigint_to_a_real_process_writes_a_checkpoint_and_exits_130(home, text):
    command = [sys.executable, "-m", "remask", "train", "mdlm-file", *BYTES, "training.steps=1000000"]
    process = subprocess.Popen(
        [*command, "training.log_every=1", f"data.source={text}"], stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("step "):
                process.send_signal(signal.SIGINT)
                break
        _, rest = process.communicate(timeout=120)
    finally:
        process.kill()
    record, folder = newest(home)
    assert process.returncode == 130
    assert f"To go on: remask train --resume {record.id}" in rest
    assert "Traceback" not in rest
    assert (folder.checkpoints_path / f"step-{record.step}" / "state.json").is_file()


def test_a_finished_run_is_not_resumed(trained):
    assert "finished all of its 3 steps" in refused("train", "--resume", "last")


def test_a_run_in_training_is_not_resumed_by_a_second_process(home, text, monkeypatch):
    interrupt_at(monkeypatch, 3, signal.SIGINT, "mdlm-file", *BYTES, *LONGER, f"data.source={text}")
    record, folder = newest(home)
    before = folder.metrics_path.read_bytes()
    with folder.lock():
        message = refused("train", "--resume", record.id)
    assert "is in use" in message
    assert str(os.getpid()) in message
    assert folder.metrics_path.read_bytes() == before


def test_two_trainings_at_one_moment_get_two_folders(home, text, monkeypatch):
    monkeypatch.setattr("remask.experiment.make_run_id", lambda *_, **__: "same")
    for _ in range(2):
        succeeds("train", "mdlm-file", *BYTES, f"data.source={text}")
    assert run_folders(home) == ["same", "same-2"]


def test_a_run_whose_text_changed_is_not_resumed(home, monkeypatch):
    own = write_text(home.parent / "own.txt")
    interrupt_at(monkeypatch, 3, signal.SIGINT, "mdlm-file", *BYTES, *LONGER, "data.source=own.txt")
    before = newest(home)[1].metrics_path.read_bytes()
    own.write_text(own.read_text() + " more")
    assert "has changed" in refused("train", "--resume", "last")
    own.unlink()
    assert "own.txt" in refused("train", "--resume", "last")
    assert newest(home)[1].metrics_path.read_bytes() == before
    write_text(own)
    succeeds("train", "--resume", "last")


def damage(folder: Path, *, name: str = "network.safetensors") -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[:-100])


def test_a_truncated_checkpoint_falls_back_to_the_one_before_and_to_one_line_when_none_is_whole(
    home, text, monkeypatch
):
    arguments = ["mdlm-file", *BYTES, *LONGER, "training.checkpoint_every=2", f"data.source={text}"]
    succeeds("train", *arguments)
    whole = newest(home)[1]
    interrupt_at(monkeypatch, 5, signal.SIGINT, *arguments)
    record, folder = newest(home)
    damage(folder.checkpoints_path / "step-5")
    done = succeeds("train", "--resume", record.id)
    assert "passed over a damaged checkpoint: step-5" in done.err
    assert weights(folder) == weights(whole)

    interrupt_at(monkeypatch, 5, signal.SIGINT, *arguments)
    both = newest(home)[1]
    damage(both.checkpoints_path / "step-5", name="state.json")
    damage(both.checkpoints_path / "step-4", name="optimizer.safetensors")
    message = refused("train", "--resume", "last")
    assert "no whole checkpoint" in message
    assert "step-4" in message


def test_a_checkpoint_of_another_vocabulary_is_refused(home, text, monkeypatch):
    interrupt_at(monkeypatch, 3, signal.SIGINT, "mdlm-file", *BYTES, *LONGER, f"data.source={text}")
    _, folder = newest(home)
    folder.recipe_path.write_text(folder.recipe_path.read_text().replace("kind: byte", "kind: character"))
    assert "another vocabulary" in refused("train", "--resume", "last")


# ── disks that refuse ───────────────────────────────────────────────────────────────────────────────────────────


def files_end_at(size: int) -> None:
    """No file of this process may grow beyond so many bytes, until `files_may_grow`; compiled modules are not written.

    Python cuts those short without a word, and whoever imports them afterwards fails.
    """
    sys.dont_write_bytecode = True
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@pytest.fixture
def files_may_grow():
    """Takes the limit of `files_end_at` back."""
    before, writes = resource.getrlimit(resource.RLIMIT_FSIZE), sys.dont_write_bytecode
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    sys.dont_write_bytecode = writes


def test_a_full_disk_at_a_checkpoint_keeps_the_one_before_and_the_run_resumes(home, text, monkeypatch, files_may_grow):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    arguments = ["mdlm-file", *BYTES, *LONGER, "training.checkpoint_every=3", f"data.source={text}"]
    succeeds("train", *arguments)
    whole = newest(home)[1]
    with monkeypatch.context() as patch:
        at_step(patch, 6, lambda: files_end_at(100_000))
        message = refused("train", *arguments, code=1)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    record, folder = newest(home)
    assert "checkpoint of step 6 could not be written" in message
    assert [path.name for path in folder.checkpoints_path.iterdir()] == ["step-3"]
    assert record.status == "failed"
    succeeds("train", "--resume", "last")
    assert weights(folder) == weights(whole)


def test_a_full_disk_while_metrics_are_written_is_one_line_and_the_run_resumes(home, text, monkeypatch, files_may_grow):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    arguments = ["mdlm-file", *BYTES, *LONGER, "training.checkpoint_every=3", f"data.source={text}"]
    succeeds("train", *arguments)
    whole = newest(home)[1]
    with monkeypatch.context() as patch:
        # nothing can be written any more, the record of the failure neither
        at_step(patch, 4, lambda: files_end_at(64))
        message = refused("train", *arguments, code=1)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "metrics.jsonl" in message
    assert newest(home)[0].status in ("killed", "failed")
    succeeds("train", "--resume", "last")
    assert weights(newest(home)[1]) == weights(whole)
    assert [line["step"] for line in newest(home)[1].metrics()] == [line["step"] for line in whole.metrics()]


@pytest.mark.skipif(not hasattr(os, "seteuid") or os.geteuid() != 0, reason="needs root to become somebody else")
def test_a_home_that_may_not_be_written_is_one_line(home, text, monkeypatch):
    monkeypatch.setenv("REMASK_HOME", "/usr/remask-runs")
    monkeypatch.setattr("remask.experiment.gather", gather_then_become_nobody)
    try:
        message = refused("train", "mdlm-file", *BYTES, f"data.source={text}", code=1)
    finally:
        os.seteuid(0)
    assert "/usr/remask-runs" in message
    assert "ermission denied" in message
    assert not Path("/usr/remask-runs").exists()


def gather_then_become_nobody(recipe, **options):
    """The text lies where only root may read, so the user changes just before the run's folder is made."""
    materials = gather(recipe, **options)
    os.seteuid(65534)
    return materials


def test_a_home_below_a_file_is_one_line(home, text, monkeypatch):
    monkeypatch.setenv("REMASK_HOME", str(text / "runs"))
    assert "cannot write" in refused("train", "mdlm-file", *BYTES, f"data.source={text}", code=1)


def test_a_cache_below_a_file_is_one_line_that_names_its_variable(home, text, monkeypatch):
    monkeypatch.setenv("REMASK_CACHE", str(text / "cache"))
    assert "REMASK_CACHE" in refused("train", "mdlm-file", *BYTES, f"data.source={text}")
    assert run_folders(home) == []


@pytest.mark.parametrize("size", ["network.width=2000000000", "network.mlp_width=100000000000000000"])
def test_too_large_a_network_is_one_line(home, text, size):
    message = refused("train", "mdlm-file", *BYTES, size, f"data.source={text}", code=1)
    assert "not enough memory" in message
    assert run_folders(home) == []
