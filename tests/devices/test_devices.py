"""Nothing assumes the CPU: every flow that runs a model, on a device whose tensors cannot be mixed with the
CPU's.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.devices.elsewhere import AVAILABLE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not AVAILABLE, reason="this torch has no devices written in Python"),
]


def test_the_device_refuses_to_be_mixed() -> None:
    """In a process of its own, like the flows."""
    script = """
import torch
from tests.devices.elsewhere import away
layer, row = torch.nn.Linear(3, 2), torch.randn(1, 3)
wanted = layer(row)
layer.to(away())
assert layer.weight.device == torch.device("away:0")
found = layer(row.to("away:0"))
found.sum().backward()
assert torch.equal(found.cpu(), wanted)
assert layer.weight.grad.device == layer.weight.device
found *= 2
assert torch.equal(found.cpu(), 2 * wanted)
for mixed in (lambda: layer(row), lambda: torch.zeros(2, device="away:0") + torch.ones(2)):
    try:
        mixed()
    except RuntimeError as error:
        assert "expects its tensors on one device" in str(error)
    else:
        raise AssertionError("mixed")
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_every_flow_on_another_device(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
        "PIU_LORA_CACHE": str(tmp_path / "cache"),
    }
    command = [sys.executable, "-m", "tests.devices.flows", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900, check=False)
    assert run.returncode == 0, run.stderr
    outcomes = {line["flow"]: line["error"] for line in map(json.loads, run.stdout.splitlines())}
    assert len(outcomes) >= 25
    failed = {flow: error for flow, error in outcomes.items() if error}
    assert not failed, "\n\n".join(f"{flow}\n{error}" for flow, error in failed.items())
