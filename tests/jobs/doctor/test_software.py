"""Installed packages and the two of onnxruntime, on planted folders; what the doctor says of torch."""

import sys
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from piu_lora.jobs.doctor import software
from piu_lora.jobs.doctor.finding import Finding
from tests.jobs.doctor.planted import by_name


def install(site: Path, name: str, version: str, requires: Iterable[str] = ()) -> None:
    """The metadata that pip leaves behind."""
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    lines = [f"Requires-Dist: {line}" for line in requires]
    (folder / "METADATA").write_text(
        "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines, ""])
    )


def runtime(
    site: Path, monkeypatch: pytest.MonkeyPatch, module: Any, *, gpu: bool = True
) -> dict[str, Finding]:
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    return by_name(software.runtime_findings([str(site)], gpu))


def module(*providers: str) -> Any:
    return SimpleNamespace(
        __version__="1.32.0", InferenceSession=object, get_available_providers=lambda: list(providers)
    )


# Python


def test_package_versions_against_the_demands(tmp_path: Path) -> None:
    requires = [
        "torch<2.14,>=2.6",
        "diffusers>=0.42,<1",
        "peft>=0.21,<1",
        "accelerate>=1",
        "transformers>=5",
        'onnx>=9; extra == "train"',
    ]
    install(tmp_path, "piu-lora", "0.1.0", requires)
    for name, version in (
        ("peft", "0.21.2"),
        ("torch", "2.13.0+cpu"),
        ("diffusers", "0.30.0"),
        ("accelerate", "0.9"),
    ):
        install(tmp_path, name, version)
    found = by_name(software.package_findings([str(tmp_path)]))
    assert (found["torch"].status, found["torch"].value) == ("ok", "2.13.0+cpu")
    assert found["diffusers"].status == "missing"
    assert found["diffusers"].value == "0.30.0, but piu-lora needs <1,>=0.42"
    assert found["diffusers"].advice == 'pip install "diffusers<1,>=0.42"'
    assert (found["accelerate"].status, found["transformers"].status) == ("missing", "missing")
    assert found["transformers"].advice == 'pip install "transformers>=5"'
    assert "onnx" not in found


def test_a_package_above_the_range_is_a_warning(tmp_path: Path) -> None:
    install(tmp_path, "piu-lora", "0.1.0", requires=["torch<2.14,>=2.6"])
    install(tmp_path, "torch", "2.14.0")
    assert by_name(software.package_findings([str(tmp_path)]))["torch"].status == "warning"


def test_either_onnxruntime_will_do(tmp_path: Path) -> None:
    install(tmp_path, "piu-lora", "0.1.0", requires=["onnxruntime>=1.20"])
    install(tmp_path, "onnxruntime-gpu", "1.31.1")
    found = by_name(software.package_findings([str(tmp_path)]))["onnxruntime"]
    assert (found.status, found.value) == ("ok", "1.31.1 (GPU)")


# onnxruntime


def test_one_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "onnxruntime", "1.32.0")
    found = runtime(tmp_path, monkeypatch, module("CPUExecutionProvider"), gpu=False)
    assert {finding.status for finding in found.values()} == {"ok"}
    assert found["import"].value == "version 1.32.0: CPUExecutionProvider"


def test_both_distributions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where they seem to work: removing one would break the other."""
    install(tmp_path, "onnxruntime", "1.32.0")
    install(tmp_path, "onnxruntime-gpu", "1.31.1")
    found = runtime(tmp_path, monkeypatch, module("CUDAExecutionProvider", "CPUExecutionProvider"))
    assert found["packages"].status == "warning"
    assert "onnxruntime and onnxruntime-gpu are both installed" in found["packages"].value
    assert found["import"].status == "ok"
    assert found["packages"].advice.splitlines() == [
        "pip uninstall -y onnxruntime onnxruntime-gpu",
        "pip install --force-reinstall --no-deps onnxruntime-gpu",
    ]


def test_the_gpu_package_without_its_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU package was installed last, and the provider that was asked for is gone."""
    install(tmp_path, "onnxruntime-gpu", "1.31.1")
    install(tmp_path, "onnxruntime", "1.32.0")
    found = runtime(tmp_path, monkeypatch, module("CPUExecutionProvider"))
    assert found["import"].status == "warning"
    assert "no CUDAExecutionProvider, although onnxruntime-gpu is installed" in found["import"].value


def test_metadata_without_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two was uninstalled: the other counts as installed and is an empty namespace."""
    install(tmp_path, "onnxruntime", "1.32.0")
    found = runtime(tmp_path, monkeypatch, SimpleNamespace(), gpu=False)
    assert found["import"].status == "missing"
    assert "InferenceSession" in found["import"].value
    assert found["import"].advice.splitlines()[1] == "pip install --force-reinstall --no-deps onnxruntime"


def test_no_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert runtime(tmp_path, monkeypatch, None)["import"].status == "missing"


# torch


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
    found = by_name(software.torch_findings(fake_torch(capability, "12.6"), driver=True))
    assert found["torch"] == Finding("Device", "torch", "ok", "2.13.0, CUDA 12.6")
    assert found["cuda:0"].value == f"NVIDIA H100, 70.00 GB free of 85.00 GB, dtype {dtype}"


def test_cpu_takes_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software, "usable", lambda: 2)
    found = by_name(software.torch_findings(fake_torch(), driver=False))["torch"]
    assert (found.status, found.value) == ("ok", "2.13.0+cpu, no CUDA build, dtype fp32, 2 threads")


def test_driver_with_a_cpu_build() -> None:
    found = by_name(software.torch_findings(fake_torch(), driver=True))["torch"]
    assert found.status == "warning"
    assert "the NVIDIA GPU lies idle" in found.value
    assert "install the CUDA build" in found.advice


def test_driver_that_torch_cannot_use() -> None:
    found = by_name(software.torch_findings(fake_torch(cuda="12.6"), driver=True))["torch"]
    assert (found.status, "run nvidia-smi" in found.advice) == ("warning", True)


def test_torch_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    (failure,) = software.torch_findings()
    assert failure.status == "missing"
    assert failure.value.startswith("cannot be imported: ModuleNotFoundError")
