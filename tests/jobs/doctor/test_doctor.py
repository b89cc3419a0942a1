"""The commands that can run, and the doctor as a whole."""

import json
import socket
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from piu_lora import hub
from piu_lora.cli.doctor import report_lines
from piu_lora.jobs import doctor
from piu_lora.jobs.doctor import finding, machine, models, packages, speed
from piu_lora.jobs.doctor.finding import Finding, Report, command_findings, guarded, size
from piu_lora.model import BaseFamily, find_family
from tests.cli.test_cli import piu
from tests.jobs.doctor.planted import TOKEN, by_name

MEASURED = speed.seconds_an_image

# Commands

BOTH = (find_family("mini"), find_family("arc2face"))


def healthy() -> list[Finding]:
    names = {need for needs, faces in finding.command_needs(BOTH).values() for need in (*needs, *faces)}
    parts = (name.removesuffix(")").split(" (") for name in sorted(names))
    return [Finding(section, name, "ok", "") for name, section in parts]


def states(findings: list[Finding], families: Sequence[BaseFamily] = BOTH) -> dict[str, str]:
    commands = command_findings(findings, families)
    return {name: entry.status for name, entry in by_name(commands).items()}


def lacking(section: str, name: str) -> list[Finding]:
    return [entry for entry in healthy() if (entry.section, entry.name) != (section, name)]


def test_commands_that_can_run() -> None:
    assert set(states(healthy()).values()) == {"ok"}
    assert not [name for name in states(healthy(), [find_family("mini")]) if "arc2face" in name]
    no_detector = states(lacking("Face pack", "detector"))
    assert {name for name, status in no_detector.items() if status == "missing"} == {
        "evaluate arc2face",
        "bank build",
    }
    assert no_detector["forget arc2face"] == no_detector["generate arc2face"] == "warning"
    no_weights = states(lacking("Models", "Arc2Face"))
    assert {name for name, status in no_weights.items() if status == "missing"} == {
        f"{verb} arc2face" for verb in ("forget", "generate", "evaluate")
    }
    assert states(lacking("onnxruntime", "import"))["forget mini"] == "missing"


def test_what_a_command_needs_is_named() -> None:
    found = by_name(command_findings([], BOTH))
    needs = "torch (Device), import (onnxruntime), mini (Models), out (Disk)"
    assert found["forget mini"].value == f"needs {needs}"


# The whole


def test_a_probe_that_raises_keeps_what_it_found() -> None:
    def probe() -> Iterable[Finding]:
        yield Finding("S", "a", "ok", "1")
        raise RuntimeError("first\nsecond")

    assert guarded("S", "b", probe) == [
        Finding("S", "a", "ok", "1"),
        Finding("S", "b", "warning", "could not be determined: RuntimeError: first"),
    ]


def test_sizes() -> None:
    assert [size(count) for count in (0, 999, 2e3, 1.5e6, 3.44e9)] == [
        "0 bytes",
        "999 bytes",
        "2.0 kB",
        "1.5 MB",
        "3.44 GB",
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
    assert list(sections) == [
        "Python",
        "Device",
        "onnxruntime",
        "Models",
        "Face pack",
        "Token",
        "Disk",
        "Commands",
    ]
    everything = result.stdout + result.stderr + text.stdout + text.stderr
    assert "present (HF_TOKEN)" in everything
    assert not [part for part in (TOKEN, TOKEN[:8], TOKEN[-8:]) if part in everything]
    assert "network" not in everything
    assert not cache.exists()


def test_command_exits_3_when_the_embedded_base_is_broken(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = piu("doctor", "--base", "mini")
    assert result.returncode == 3
    assert "missing  forget mini    needs import (onnxruntime)" in result.stdout
    assert "arc2face" not in result.stdout.split("Commands")[1]
    assert "Traceback" not in result.stderr


def test_command_survives_every_probe_failing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> Any:
        raise RuntimeError("no")

    probes = (
        (doctor, "command_findings"), (packages, "package_findings"), (packages, "runtime_findings"),
        (machine, "device_findings"), (machine, "host_findings"), (machine, "room"), (hub, "token_present"),
        (models, "base_findings"), (models, "cache_findings"),
        (models, "pack_findings"), (speed, "speed_findings"),
    )  # fmt: skip
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

    for name in ("cache_folder", "cached_file", "token_present"):
        monkeypatch.setattr(hub, name, absent)
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
    monkeypatch.setattr(speed, "seconds_an_image", MEASURED)
    monkeypatch.setattr("piu_lora.model.generate", lambda *_, **settings: drawn.append(settings))
    (entry,) = speed.speed_findings()
    assert entry.status == "ok"
    assert entry.value.endswith(" s on the embedded base")
    assert [settings["steps"] for settings in drawn] == [15] * 4
