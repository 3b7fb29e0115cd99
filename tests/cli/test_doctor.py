import json
import sys
from importlib import metadata

import pytest
import torch
import typer
from typer.testing import CliRunner

from remask.cli import checks as module
from remask.cli.checks import Requirement, checks, parse_requirement, satisfies
from remask.cli.doctor import doctor

app = typer.Typer()
app.command()(doctor)


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("REMASK_HOME", str(tmp_path / "runs"))
    monkeypatch.setenv("REMASK_CACHE", str(tmp_path / "deep" / "cache"))


def run(*arguments):
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def found(name):
    return next(check for check in checks() if check.name == name)


def test_a_machine_that_has_everything_gets_exit_code_0_and_is_left_as_it_was(tmp_path):
    result = run()
    assert result.exit_code == 0, result.output
    for word in (
        "python",
        "torch",
        "transformers",
        "device cpu",
        "cores",
        "memory",
        "folder runs",
        "folder cache",
    ):
        assert word in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_json_is_one_object_a_line_and_nothing_else():
    records = [json.loads(line) for line in run("--json").stdout.splitlines()]
    assert all(set(record) == {"name", "status", "detail", "remedy"} for record in records)
    assert {record["status"] for record in records} <= {"ok", "note", "problem"}


def test_a_missing_package_is_a_problem_with_its_install_line(monkeypatch):
    real = metadata.version

    def version(package):
        if package == "safetensors":
            raise metadata.PackageNotFoundError(package)
        return real(package)

    monkeypatch.setattr(metadata, "version", version)
    result = run()
    assert result.exit_code == 1
    check = found("safetensors")
    assert check.status == "problem"
    assert check.remedy.startswith("pip install 'safetensors")
    assert check.remedy in result.stdout


def test_a_package_outside_its_bounds_is_a_problem(monkeypatch):
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "99.0" if name == "pydantic" else real(name))
    check = found("pydantic")
    assert check.status == "problem"
    assert "99.0, wanted " in check.detail


def test_a_missing_extra_is_a_note_and_no_failure(monkeypatch):
    monkeypatch.setattr(module, "_requirements", lambda: [Requirement("no-such-package", "", "datasets")])
    check = found("extra datasets")
    assert check.status == "note"
    assert check.remedy == "pip install 'remask[datasets]'"
    assert run().exit_code == 0


def test_a_torch_that_does_not_load_is_a_problem_and_the_rest_is_still_looked_at(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    names = {check.name: check.status for check in checks()}
    assert names["torch"] == "problem" or names["device cpu"] == "problem"
    assert {"cores", "memory", "folder runs"} <= set(names)
    assert run().exit_code == 1


def test_a_gpu_that_cannot_be_used_is_a_note_and_no_crash(monkeypatch):
    def broken(index):
        raise RuntimeError("CUDA error: all devices are busy\nand more")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", broken)
    check = found("device cuda:0")
    assert check.status == "note"
    assert check.detail == "CUDA error: all devices are busy and more"


def test_a_driver_without_a_fitting_torch_is_noted(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(module.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    check = found("device cuda")
    assert check.status == "note"
    assert "CUDA build of torch" in check.remedy


@pytest.mark.parametrize(("variable", "name"), [("REMASK_HOME", "folder runs"), ("REMASK_CACHE", "folder cache")])
def test_a_folder_that_cannot_be_written_is_a_problem_that_names_its_variable(variable, name, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(variable, str(tmp_path / "file" / "below"))
    check = found(name)
    assert check.status == "problem"
    assert variable in check.remedy
    assert run().exit_code == 1


def test_little_disk_is_noted_before_it_is_full(monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 2**20}))
    assert found("folder runs").status == "note"


def test_a_check_that_breaks_is_told_in_one_line(monkeypatch):
    def broken():
        raise RuntimeError("first\nsecond")
        yield

    monkeypatch.setattr(module, "_LOOKS", (("memory", broken),))
    (check,) = checks()
    assert (check.status, check.detail) == ("problem", "first second")


@pytest.mark.parametrize(
    ("line", "requirement"),
    [
        ("torch<2.14,>=2.11", Requirement("torch", "<2.14,>=2.11", "")),
        ("datasets<6,>=4.0; extra == 'datasets'", Requirement("datasets", "<6,>=4.0", "datasets")),
        ('remask[datasets,parquet]; extra == "test"', Requirement("remask", "", "test")),
        ("numpy", Requirement("numpy", "", "")),
    ],
)
def test_requirements_are_read_as_installed_packages_list_them(line, requirement):
    assert parse_requirement(line) == requirement


@pytest.mark.parametrize(
    ("version", "bounds", "fits"),
    [
        ("2.13.0+cpu", "<2.14,>=2.11", True),
        ("2.14.0", "<2.14,>=2.11", False),
        ("2.9.1", "<2.14,>=2.11", False),
        ("2.11", ">=2.11.0", True),
        ("2.11.0", ">=2.11", True),
        ("6.0", "<6", False),
        ("1.0", "", True),
    ],
)
def test_versions_are_compared_as_numbers(version, bounds, fits):
    assert satisfies(version, bounds) is fits
