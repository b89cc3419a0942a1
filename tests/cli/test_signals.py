"""Ctrl-C and SIGTERM to the real command, in a process of its own."""

import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.test_cli import QUICK, command, forget


def with_a_checkpoint(out: Path, *settings: str) -> "subprocess.Popen[str]":
    """A process that trains, and has just written its first checkpoint."""
    line = command("forget", "--identity", "mini-0007", "--out", out, *QUICK, *settings)
    run = subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    deadline = time.time() + 120
    while not out.with_name(f".{out.name}.checkpoint").exists() and time.time() < deadline:
        time.sleep(0.05)
    return run


@pytest.mark.slow
def test_ctrl_c_and_resume(tmp_path: Path) -> None:
    """SIGINT to the real process while it trains; the resumed adapter equals an uninterrupted one."""
    long = ["--set", "train.steps=20", "--set", "train.checkpoint_every=2"]
    run = with_a_checkpoint(tmp_path / "out", *long)
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 130, errors
    assert "--resume" in errors
    assert not (tmp_path / "out").exists()
    assert forget(tmp_path / "out", *long, "--resume").returncode == 0
    assert forget(tmp_path / "whole", *long).returncode == 0
    name = "pytorch_lora_weights.safetensors"
    assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.slow
def test_sigterm_is_like_ctrl_c(tmp_path: Path) -> None:
    """What a scheduler sends: the checkpoint stays, the lock goes, and the last line says how to go on."""
    run = with_a_checkpoint(tmp_path / "out", "--set", "train.steps=200", "--set", "train.checkpoint_every=2")
    run.terminate()
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 143, errors
    assert errors.splitlines()[-1] == "terminated; repeat the command with --resume to go on"
    assert [path.name for path in tmp_path.iterdir()] == [".out.checkpoint"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_generate_stops_at_any_moment(tmp_path: Path, number: signal.Signals) -> None:
    line = command("generate", "--identity", "mini-0007", "--images", "64", "--out", tmp_path / "out.png")
    for moment in (2.0, 3.0, 5.0, 8.0, 12.0):
        run = subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        time.sleep(moment)
        run.send_signal(number)
        sent = time.monotonic()
        _, errors = run.communicate(timeout=120)
        if (tmp_path / "out.png").exists():
            break
        assert run.returncode == 128 + number, errors
        assert time.monotonic() - sent < 20
        assert errors.splitlines()[-1] == ("interrupted" if number == signal.SIGINT else "terminated")
        assert "Traceback" not in errors
        assert not list(tmp_path.iterdir())
