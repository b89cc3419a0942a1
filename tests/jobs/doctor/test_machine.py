"""What the doctor says of torch, the machine and its disks."""

import shutil
import sys
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from piu_lora.jobs.doctor import machine
from piu_lora.jobs.doctor.finding import Finding
from tests.jobs.doctor.planted import by_name

Usage = namedtuple("Usage", "total used free")


def fake_torch(capability: tuple[int, int] | None = None, cuda: str | None = None) -> Any:
    return SimpleNamespace(
        __version__="2.13.0" + ("" if cuda else "+cpu"),
        version=SimpleNamespace(cuda=cuda),
        cuda=SimpleNamespace(
            is_available=lambda: capability is not None,
            device_count=lambda: 1,
            get_device_capability=lambda index: capability,
            mem_get_info=lambda index: (70_000_000_000, 85_000_000_000),
            get_device_name=lambda index: "NVIDIA H100",
        ),
    )


@pytest.mark.parametrize(("capability", "dtype"), [((9, 0), "bf16"), ((8, 0), "bf16"), ((7, 5), "fp16")])
def test_cuda_device_and_dtype(capability: tuple[int, int], dtype: str) -> None:
    found = by_name(machine.torch_findings(fake_torch(capability, "12.6"), driver=True))
    assert found["torch"] == Finding("Device", "torch", "ok", "2.13.0, CUDA 12.6")
    assert found["cuda:0"].value == f"NVIDIA H100, 70.00 GB free of 85.00 GB, dtype {dtype}"


def test_cpu_takes_fp32() -> None:
    found = by_name(machine.torch_findings(fake_torch(), driver=False))["torch"]
    assert (found.status, found.value) == ("ok", "2.13.0+cpu, no CUDA build, dtype fp32")


def test_driver_with_a_cpu_build() -> None:
    found = by_name(machine.torch_findings(fake_torch(), driver=True))["torch"]
    assert found.status == "warning"
    assert "the NVIDIA GPU lies idle" in found.value
    assert "install the CUDA build" in found.advice


def test_driver_that_torch_cannot_use() -> None:
    found = by_name(machine.torch_findings(fake_torch(cuda="12.6"), driver=True))["torch"]
    assert (found.status, "run nvidia-smi" in found.advice) == ("warning", True)


def test_torch_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    (failure,) = machine.device_findings()
    assert failure.status == "missing"
    assert failure.value.startswith("cannot be imported: ModuleNotFoundError")


def test_host() -> None:
    found = by_name(machine.host_findings())
    assert "free of" in found["memory"].value
    assert found["cpu"].value.endswith("threads")


def test_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10e9, 6e9, 4e9))
    (short,) = machine.room("Hub cache", tmp_path / "not" / "yet", "set HF_HOME", 4_270_000_000)
    assert (short.status, short.advice) == ("missing", "set HF_HOME")
    assert "4.00 GB free" in short.value
    assert by_name(machine.room("out", tmp_path, ""))["out"].status == "ok"
    assert by_name(machine.room("out", Path("/dev/null/out"), ""))["out"].status == "missing"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10e9, 10e9, 1e6))
    assert by_name(machine.room("out", tmp_path, ""))["out"].status == "missing"
