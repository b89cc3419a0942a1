"""Which method ``forget`` takes where none is named, and what is said of settings that it does not read."""

import json
from pathlib import Path

import pytest

from tests.cli.test_cli import piu

NAMES = ("retained", "checked", "written", "variations", "near", "prompts")
SMALL = [part for name in NAMES for part in ("--set", f"gate.{name}=32")]


def test_gate_neurons_by_default_and_a_training_setting_is_said_to_do_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = piu(
        "forget",
        "--identity",
        "mini-0007",
        "--out",
        tmp_path / "out",
        "--no-evaluate",
        *SMALL,
        "--set",
        "train.steps=3",
        "--set",
        "train.precision=fp32",
    )
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "out" / "forget.json").read_text())["method"] == "gate-encoder"
    assert "solved in" in result.stdout
    assert "train.steps does nothing: gate-encoder solves in closed form; pass --method piu" in caplog.text


def test_a_method_in_a_settings_file_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text('method = "closed-kv"\n[closed]\nretained = 64\nnear = 64\nmixtures = 8\n')
    result = piu(
        "forget",
        "--identity",
        "mini-0007",
        "--out",
        tmp_path / "out",
        "--no-evaluate",
        "--config",
        settings,
        "--set",
        "lora.blocks=['mid_block']",
    )
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "out" / "forget.json").read_text())["method"] == "closed-kv"
    assert "does nothing" not in caplog.text
