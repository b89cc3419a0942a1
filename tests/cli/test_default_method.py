"""Which method ``forget`` takes where none is named, and what is said of settings that it does not read."""

import json
from pathlib import Path

import pytest

from tests.cli.test_cli import piu

NAMES = ("retained", "checked", "written", "variations", "near", "prompts")
SMALL = [part for name in NAMES for part in ("--set", f"gate.{name}=32")]


def forget(out: Path, *arguments: object) -> tuple[str, str]:
    """The method in the receipt, and what is printed."""
    result = piu("forget", "--identity", "mini-0007", "--out", out, "--no-evaluate", *arguments)
    assert result.returncode == 0, result.stderr
    return json.loads((out / "forget.json").read_text())["method"], result.stdout


def test_gate_neurons_by_default_and_a_training_setting_is_said_to_do_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained = ("--set", "train.steps=3", "--set", "train.precision=fp32")
    method, printed = forget(tmp_path / "out", *SMALL, *trained)
    assert method == "gate-encoder"
    assert "solved in" in printed
    assert "train.steps does nothing: gate-encoder solves in closed form; pass --method piu" in caplog.text


def test_a_method_in_a_settings_file_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text('method = "closed-kv"\n[closed]\nretained = 64\nnear = 64\nmixtures = 8\n')
    method, _ = forget(tmp_path / "out", "--config", settings, "--set", "lora.blocks=['mid_block']")
    assert method == "closed-kv"
    assert "does nothing" not in caplog.text
