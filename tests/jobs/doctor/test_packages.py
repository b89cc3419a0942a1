"""Installed packages, and the broken states of onnxruntime, on planted folders."""

import base64
import hashlib
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from piu_lora.jobs.doctor import packages, runtime
from piu_lora.jobs.doctor.finding import Finding
from tests.jobs.doctor.planted import by_name


def install(
    site: Path, name: str, version: str, files: dict[str, str] | None = None, requires: Iterable[str] = ()
) -> None:
    """What pip leaves behind: the files, METADATA, and a RECORD with digests and sizes."""
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    lines = [f"Requires-Dist: {line}" for line in requires]
    (folder / "METADATA").write_text(
        "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines, ""])
    )
    record = []
    for path, content in (files or {}).items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(content)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
        record.append(f"{path},sha256={digest},{len(content)}")
    (folder / "RECORD").write_text(
        "\n".join([*record, f"{folder.name}/RECORD,,", "onnxruntime/__pycache__/x.pyc,,"])
    )


def onnxruntime_files(name: str) -> dict[str, str]:
    info = f"package_name = {name!r}\n"
    return {
        "onnxruntime/__init__.py": "# same in both\n",
        "onnxruntime/capi/build_and_package_info.py": info,
        "../../bin/tool": name,
    }


def module(*providers: str) -> Callable[[], Any]:
    return lambda: SimpleNamespace(__version__="1.32.0", get_available_providers=lambda: list(providers))


def broken() -> Any:
    raise AttributeError("module 'onnxruntime' has no attribute 'InferenceSession'")


def runtime_of(site: Path, load: Callable[[], Any], gpu: bool = True) -> dict[str, Finding]:
    return by_name(runtime.runtime_findings(gpu, [str(site)], load))


# Python


def test_package_versions_against_the_demands(tmp_path: Path) -> None:
    install(
        tmp_path,
        "piu-lora",
        "0.1.0",
        requires=["torch<2.14,>=2.6", "diffusers>=0.42,<1", "peft>=0.21,<1", 'onnx>=9; extra == "train"'],
    )
    install(tmp_path, "peft", "0.21.2", requires=["accelerate>=1"])
    install(tmp_path, "torch", "2.13.0+cpu")
    install(tmp_path, "diffusers", "0.30.0")
    install(tmp_path, "accelerate", "0.9")
    found = by_name(packages.package_findings([str(tmp_path)]))
    assert (found["torch"].status, found["torch"].value) == ("ok", "2.13.0+cpu")
    assert found["diffusers"].status == "missing"
    assert found["diffusers"].value == "0.30.0, but piu-lora needs <1,>=0.42"
    assert found["diffusers"].advice == 'pip install "diffusers<1,>=0.42"'
    assert (found["accelerate"].status, found["transformers"].status) == ("missing", "missing")
    assert found["transformers"].advice == 'pip install "transformers"'


def test_a_package_above_the_range_is_a_warning(tmp_path: Path) -> None:
    install(tmp_path, "piu-lora", "0.1.0", requires=["torch<2.14,>=2.6"])
    install(tmp_path, "torch", "2.14.0")
    assert by_name(packages.package_findings([str(tmp_path)]))["torch"].status == "warning"


def test_either_onnxruntime_will_do(tmp_path: Path) -> None:
    install(tmp_path, "onnxruntime-gpu", "1.31.1")
    found = by_name(packages.package_findings([str(tmp_path)]))["onnxruntime"]
    assert (found.status, found.value) == ("ok", "1.31.1 (onnxruntime-gpu)")


def test_damaged_metadata_is_a_finding(tmp_path: Path) -> None:
    install(tmp_path, "piu-lora", "0.1.0", requires=["torch >>> 2"])
    install(tmp_path, "torch", "2.13.0")
    found = by_name(packages.package_findings([str(tmp_path)]))
    assert found["torch"].value.startswith("could not be determined: InvalidRequirement")
    assert found["peft"].advice == 'pip install "peft"'
    assert set(packages.PACKAGES) <= set(found)


# onnxruntime


def test_one_whole_distribution(tmp_path: Path) -> None:
    install(tmp_path, "onnxruntime", "1.32.0", onnxruntime_files("onnxruntime"))
    found = runtime_of(tmp_path, module("CPUExecutionProvider"), gpu=False)
    assert {finding.status for finding in found.values()} == {"ok"}
    assert found["files of onnxruntime"].value == "2, all as installed"
    assert found["providers"].value == "CPUExecutionProvider"


def test_both_distributions_gpu_last(tmp_path: Path) -> None:
    install(tmp_path, "onnxruntime", "1.32.0", onnxruntime_files("onnxruntime"))
    install(tmp_path, "onnxruntime-gpu", "1.31.1", onnxruntime_files("onnxruntime-gpu"))
    found = runtime_of(tmp_path, module("CUDAExecutionProvider", "CPUExecutionProvider"))
    assert found["distributions"].status == "warning"
    assert "the files are those of onnxruntime-gpu" in found["distributions"].value
    assert (
        found["files of onnxruntime"].value == "of 2, 0 are gone and 1 have another size than the RECORD says"
    )
    assert (found["files of onnxruntime-gpu"].status, found["providers"].status) == ("ok", "ok")
    assert found["distributions"].advice.splitlines()[:2] == [
        "pip uninstall -y onnxruntime onnxruntime-gpu", "pip install --force-reinstall --no-deps onnxruntime-gpu",
    ]  # fmt: skip
    assert "pip check will then miss onnxruntime" in found["distributions"].advice


def test_both_distributions_cpu_last(tmp_path: Path) -> None:
    """The GPU wheel was asked for, and its provider is gone."""
    install(tmp_path, "onnxruntime-gpu", "1.31.1", onnxruntime_files("onnxruntime-gpu"))
    install(tmp_path, "onnxruntime", "1.32.0", onnxruntime_files("onnxruntime"))
    found = runtime_of(tmp_path, module("CPUExecutionProvider"))
    assert "the files are those of onnxruntime;" in found["distributions"].value
    assert found["providers"].status == "warning"
    assert "no CUDAExecutionProvider, although onnxruntime-gpu is installed" in found["providers"].value


def test_metadata_without_files(tmp_path: Path) -> None:
    """One of two was uninstalled: the other counts as installed and has nothing."""
    install(tmp_path, "onnxruntime", "1.32.0", onnxruntime_files("onnxruntime"))
    shutil.rmtree(tmp_path / "onnxruntime")
    found = runtime_of(tmp_path, broken, gpu=False)
    assert (
        found["files of onnxruntime"].value == "of 2, 2 are gone and 0 have another size than the RECORD says"
    )
    assert found["import"].status == "missing"
    assert "fails although onnxruntime counts as installed" in found["import"].value
    assert found["import"].advice.splitlines()[1] == "pip install --force-reinstall --no-deps onnxruntime"
    assert "providers" not in found


def test_no_distribution(tmp_path: Path) -> None:
    found = runtime_of(tmp_path, broken)
    assert (found["distributions"].status, found["import"].status) == ("missing", "missing")


def test_an_empty_namespace_is_no_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace())  # type: ignore[arg-type]
    with pytest.raises(AttributeError, match="InferenceSession"):
        runtime.import_onnxruntime()


def test_without_a_record_nothing_is_claimed(tmp_path: Path) -> None:
    install(tmp_path, "onnxruntime", "1.32.0")
    (tmp_path / "onnxruntime-1.32.0.dist-info" / "RECORD").unlink()
    assert "files of onnxruntime" not in runtime_of(tmp_path, module("CPUExecutionProvider"))
