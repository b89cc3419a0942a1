"""What the doctor says of the machine and of torch."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from piu_lora.jobs.doctor import device
from piu_lora.jobs.doctor.finding import Finding
from tests.jobs.doctor.planted import by_name


def fake_torch(capability: tuple[int, int] | None = None, cuda: str | None = None, mps: bool = False) -> Any:
    return SimpleNamespace(
        __version__="2.13.0" + ("" if cuda else "+cpu"),
        version=SimpleNamespace(cuda=cuda),
        backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: mps)),
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
    found = by_name(device.torch_findings(fake_torch(capability, "12.6"), "/usr/bin/nvidia-smi"))
    assert found["torch"] == Finding("Device", "torch", "ok", "2.13.0, built for CUDA 12.6")
    assert (
        found["cuda:0"].value
        == f"NVIDIA H100, 70.00 GB free of 85.00 GB, compute capability {capability[0]}.{capability[1]}"
    )
    assert found["dtype"].value == f"{dtype} with 85 GB on cuda:0"


def test_cpu_and_mps_take_fp32() -> None:
    found = by_name(device.torch_findings(fake_torch(mps=True), None))
    assert (found["torch"].status, found["torch"].value) == ("ok", "2.13.0+cpu, CPU build")
    assert found["mps"].status == "ok"
    assert found["dtype"].value == "fp32"


def test_driver_with_a_cpu_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")
    found = by_name(device.torch_findings(fake_torch(), "/usr/bin/nvidia-smi"))["torch"]
    assert found.status == "warning"
    assert "the GPU lies idle" in found.value
    assert found.advice.startswith('pip install --force-reinstall "torch<2.14,>=2.6"')
    monkeypatch.setattr("platform.system", lambda: "Windows")
    assert (
        "PyTorch's install page" in by_name(device.torch_findings(fake_torch(), "nvidia-smi"))["torch"].advice
    )


def test_driver_that_torch_cannot_use() -> None:
    found = by_name(device.torch_findings(fake_torch(cuda="12.6"), "/usr/bin/nvidia-smi"))["torch"]
    assert (found.status, "run nvidia-smi" in found.advice) == ("warning", True)


def test_torch_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    torch, failure = device.import_torch()
    assert torch is None
    assert failure is not None
    assert failure.status == "missing"
    assert failure.value.startswith("cannot be imported: ModuleNotFoundError")


def test_host_with_and_without_psutil(monkeypatch: pytest.MonkeyPatch) -> None:
    assert by_name(device.host_findings())["memory"].value.endswith("GB")
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert "free of" in by_name(device.host_findings())["memory"].value
