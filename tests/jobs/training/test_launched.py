"""``accelerate launch -m piu_lora``: several processes train one adapter, and only the first of them writes
and talks.

``accelerate launch --cpu --num_processes 2`` starts a single process (without MPI), so the processes are
counted here.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from piu_lora.adapter import read_adapter
from piu_lora.model.factors import state_of
from tests.unlearn.test_workers import free_port

WHAT = ("forget", "--identity", "mini-0007", "--method", "piu")
ARGUMENTS = (*WHAT, "--no-evaluate", "--device", "cpu", "--json", "--debug")


def launcher() -> list[str]:
    port = str(free_port())
    return [
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
        "--main_process_port",
        port,
    ]


def start(out: Path, *extra: str, launch: bool = True) -> subprocess.Popen[str]:
    settings = [part for pair in extra for part in (("--set", pair) if "=" in pair else (pair,))]
    command = [
        sys.executable,
        *(launcher() if launch else []),
        "-m",
        "piu_lora",
        *ARGUMENTS,
        *settings,
        "--out",
        str(out),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, talk = process.communicate(timeout=400)
    return process.returncode, output, talk


@pytest.mark.slow
def test_two_processes_make_the_adapter_of_one(tmp_path: Path) -> None:
    short = ("train.steps=2", "train.batch=2", "train.accumulation=1")
    (code, output, talk), (_, _, alone_talk) = (
        finish(start(tmp_path / name, *short, launch=several))
        for name, several in (("two", True), ("one", False))
    )
    assert code == 0, talk
    assert all(f"process {number} of 2 on cpu" in talk for number in (1, 2))
    assert " of 2 on " not in alone_talk
    # One result, one bar.
    assert json.loads(output)["path"] == str(tmp_path / "two")
    two, one = (state_of(read_adapter(tmp_path / name).change) for name in ("two", "one"))
    assert two.keys() == one.keys()
    together, single = (
        torch.cat([value.float().flatten() for value in weights.values()]) for weights in (two, one)
    )
    assert torch.nn.functional.cosine_similarity(together, single, dim=0) > 0.9999
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


@pytest.mark.slow
def test_an_error_of_one_process_ends_all(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    begun = time.monotonic()
    code, _, talk = finish(start(tmp_path / "taken"))
    assert code != 0
    assert "exists" in talk
    assert time.monotonic() - begun < 240  # far below the patience of the process that waits


@pytest.mark.slow
def test_ctrl_c_is_agreed_on_and_the_run_resumes(tmp_path: Path) -> None:
    checkpoint, settings = (
        tmp_path / ".out.checkpoint",
        ("train.steps=60", "train.batch=2", "train.accumulation=1", "train.checkpoint_every=1"),
    )
    process = start(tmp_path / "out", *settings)
    while process.poll() is None and not checkpoint.exists():
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    code, _, talk = finish(process)
    assert code != 0
    assert checkpoint.exists(), talk
    assert not (tmp_path / "out").exists()
    stopped = torch.load(checkpoint, weights_only=True)["step"]
    assert 0 < stopped < 60
    code, _, talk = finish(start(tmp_path / "out", *settings, "--resume"))
    assert code == 0, talk
    assert (tmp_path / "out" / "forget.json").exists()
