"""The doctor as a whole."""

import json
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from piu_lora import hub
from piu_lora.cli.doctor import report_lines
from piu_lora.jobs.doctor import models, software
from piu_lora.jobs.doctor.finding import Finding, Report, guarded
from tests.cli.test_cli import piu
from tests.jobs.doctor.planted import TOKEN

MEASURED = models.seconds_an_image


def test_a_probe_that_raises_keeps_what_it_found() -> None:
    def probe() -> Iterable[Finding]:
        yield Finding("S", "a", "ok", "1")
        raise RuntimeError("first\nsecond")

    assert guarded("S", "b", probe) == [
        Finding("S", "a", "ok", "1"),
        Finding("S", "b", "warning", "could not be determined: RuntimeError: first"),
    ]


def test_table_shows_a_cure_once() -> None:
    rows = (Finding("S", "a", "missing", "x", "do this"), Finding("S", "bb", "missing", "y", "do this"))
    text = "\n".join(report_lines(Report(rows)))
    assert text.count("> do this") == 1
    assert "  missing  bb  y" in text
    assert text.endswith("the embedded base cannot be used yet")


def test_command_json_without_network_or_secrets(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The schema, no connection, exit 0 without Arc2Face, and a planted token nowhere."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)

    def refuse(*_: object) -> None:
        raise AssertionError("the doctor went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    result, text = piu("doctor", "--json", "--out", tmp_path), piu("doctor", "--out", tmp_path)
    assert (result.returncode, text.returncode) == (0, 0), result.stderr
    report = json.loads(result.stdout)
    assert set(report) == {"format", "ready", "findings"}
    assert (report["format"], report["ready"]) == (1, True)
    assert {tuple(sorted(finding)) for finding in report["findings"]} == {
        ("advice", "name", "section", "status", "value")
    }
    assert {entry["status"] for entry in report["findings"]} <= {"ok", "warning", "missing"}
    sections = dict.fromkeys(finding["section"] for finding in report["findings"])
    assert list(sections) == ["Python", "Device", "onnxruntime", "Models", "Face pack"]
    everything = result.stdout + result.stderr + text.stdout + text.stderr
    assert not [part for part in (TOKEN, TOKEN[:8], TOKEN[-8:]) if part in everything]
    assert "network" not in everything
    assert not cache.exists()


def test_command_exits_3_when_the_embedded_base_is_broken(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = piu("doctor", "--base", "mini")
    assert result.returncode == 3
    assert "missing  import  fails: ModuleNotFoundError" in result.stdout
    assert "Arc2Face" not in result.stdout.split("Models")[1].split("Face pack")[0]
    assert result.stdout.rstrip().endswith("the embedded base cannot be used yet")
    assert "Traceback" not in result.stderr


def test_command_survives_every_probe_failing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> Any:
        raise RuntimeError("no")

    probes = (
        *((software, f"{name}_findings") for name in ("package", "torch", "runtime")),
        *((models, f"{name}_findings") for name in ("base", "pack", "leftover")),
    )
    for module, name in probes:
        monkeypatch.setattr(module, name, fail)
    result = piu("doctor", "--json")
    assert result.returncode == 3
    values = [finding["value"] for finding in json.loads(result.stdout)["findings"]]
    assert values
    assert all(value.startswith("could not be determined: RuntimeError") for value in values)


def test_command_survives_a_missing_hub_client(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> Any:
        raise ModuleNotFoundError("No module named 'huggingface_hub'")

    monkeypatch.setattr(hub, "cached_file", absent)
    result = piu("doctor")
    assert result.returncode == 0
    assert "arc2face  could not be determined: ModuleNotFoundError" in result.stdout


def test_command_refuses_an_unknown_base() -> None:
    result = piu("doctor", "--base", "arc3face")
    assert result.returncode == 2
    assert "'arc3face'" in result.stderr


def test_clean_removes_what_killed_runs_left(cache: Path, tmp_path: Path) -> None:
    """Named first, with the command that removes it; what a run goes on from, and a stranger's file, stay."""
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "before_after.png").touch()
    (tmp_path / ".lost.replaced").mkdir()
    (tmp_path / ".out.lock").touch()
    stay = {".out.checkpoint", ".bank.photos", ".bashrc"}
    for name in stay:
        (tmp_path / name).touch()
    told = piu("doctor", "--base", "mini", "--out", tmp_path)
    assert f'> piu-lora doctor --clean --out "{tmp_path}"' in told.stdout
    assert "half-written folder" in told.stdout
    assert (tmp_path / ".out.partial").exists()
    cleaned = piu("doctor", "--base", "mini", "--out", tmp_path, "--clean")
    assert cleaned.returncode == 0
    assert f"{tmp_path / '.out.partial'}: a half-written folder, removed" in cleaned.stdout
    assert f"put back to {tmp_path / 'lost'}" in cleaned.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"lost", *stay}
    assert "left-overs" not in piu("doctor", "--base", "mini", "--out", tmp_path).stdout


def test_how_fast_the_machine_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The calibrating run: an image of the embedded base at its own steps, first to warm up."""
    drawn: list[dict[str, Any]] = []
    monkeypatch.setattr("piu_lora.model.generate", lambda *_, **settings: drawn.append(settings))
    assert MEASURED() > 0
    assert [settings["steps"] for settings in drawn] == [15] * 4
