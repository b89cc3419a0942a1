"""The doctor: every section on planted facts, the broken states of onnxruntime on planted folders, and the command as a whole."""

import base64
import hashlib
import json
import shutil
import socket
import sys
from collections import namedtuple
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub.constants
import pytest

from piu_lora.jobs import doctor
from piu_lora.jobs.doctor import commands, device, disk, hub, models, packages, runtime
from piu_lora.jobs.doctor.finding import Finding, Report, guarded, size
from piu_lora.model.layout import ARC2FACE, SD15
from tests.cli.test_cli import piu

TOKEN = "hf_PlantedTokenThatNobodyMaySee"
Usage = namedtuple("Usage", "total used free")


def by_name(findings: Iterable[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def install(site: Path, name: str, version: str, files: dict[str, str] | None = None, requires: Iterable[str] = ()) -> None:
    """What pip leaves behind: the files, METADATA, and a RECORD with digests and sizes."""
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    lines = [f"Requires-Dist: {line}" for line in requires]
    (folder / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines, ""]))
    record = []
    for path, content in (files or {}).items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(content)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
        record.append(f"{path},sha256={digest},{len(content)}")
    (folder / "RECORD").write_text("\n".join([*record, f"{folder.name}/RECORD,,", "onnxruntime/__pycache__/x.pyc,,"]))


def onnxruntime_files(name: str) -> dict[str, str]:
    info = f"package_name = {name!r}\n"
    return {"onnxruntime/__init__.py": "# same in both\n", "onnxruntime/capi/build_and_package_info.py": info, "../../bin/tool": name}


def module(*providers: str) -> Callable[[], Any]:
    return lambda: SimpleNamespace(__version__="1.32.0", get_available_providers=lambda: list(providers))


def broken() -> Any:
    raise AttributeError("module 'onnxruntime' has no attribute 'InferenceSession'")


def runtime_of(site: Path, load: Callable[[], Any], gpu: bool = True) -> dict[str, Finding]:
    return by_name(runtime.runtime_findings(gpu, [str(site)], load))


# Python


def test_package_versions_against_the_demands(tmp_path: Path) -> None:
    install(
        tmp_path, "piu-lora", "0.1.0", requires=["torch<2.14,>=2.6", "diffusers>=0.42,<1", "peft>=0.21,<1", 'onnx>=9; extra == "train"']
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


# Device


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
    assert found["cuda:0"].value == f"NVIDIA H100, 70.00 GB free of 85.00 GB, compute capability {capability[0]}.{capability[1]}"
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
    assert "PyTorch's install page" in by_name(device.torch_findings(fake_torch(), "nvidia-smi"))["torch"].advice


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
    assert found["files of onnxruntime"].value == "of 2, 0 are gone and 1 have another size than the RECORD says"
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
    assert found["files of onnxruntime"].value == "of 2, 2 are gone and 0 have another size than the RECORD says"
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


# Models, pack, token


def plant(cache: Path, repository: tuple[str, str], file: str, content: bytes = b"12345") -> None:
    """A file in a Hub cache, as the Hub client lays it out."""
    path = cache / f"models--{repository[0].replace('/', '--')}" / "snapshots" / repository[1] / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hub cache, no login, no face pack."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIU_LORA_PACK", str(tmp_path / "pack"))
    return folder


def test_empty_cache_names_the_downloads(cache: Path) -> None:
    real, rest = models.arc2face_shelves()
    found = by_name(models.shelf_findings(real))
    assert found["Arc2Face"].status == "missing"
    assert "0 of 4 files cached (0 bytes), about 3.93 GB to download" in found["Arc2Face"].value
    assert found["Arc2Face"].advice == " ".join(["hf download", ARC2FACE[0], "--revision", ARC2FACE[1], *models.ARC2FACE_FILES])
    assert real.to_download + rest.to_download == pytest.approx(4.27e9, rel=0.01)


def test_only_what_is_missing_is_fetched(cache: Path) -> None:
    for file in models.SD15_FILES:
        if file != "vae/config.json":
            plant(cache, SD15, file)
    plant(cache, (ARC2FACE[0], "0" * 40), "encoder/config.json")  # another revision does not count
    real, rest = models.arc2face_shelves()
    found = by_name(models.shelf_findings(rest))
    assert found["Stable Diffusion 1.5"].advice == f"hf download {SD15[0]} --revision {SD15[1]} vae/config.json"
    assert found["tokenizer/merges.txt"] == Finding("Models", "tokenizer/merges.txt", "ok", "5 bytes")
    assert not real.cached


def test_complete_cache(cache: Path) -> None:
    for repository, files in ((ARC2FACE, models.ARC2FACE_FILES), (SD15, models.SD15_FILES)):
        for file in files:
            plant(cache, repository, file)
    findings = [finding for shelf in models.arc2face_shelves() for finding in models.shelf_findings(shelf)]
    assert {finding.status for finding in findings} == {"ok"}


def test_embedded_base(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from piu_lora.model import mini

    assert next(models.mini_findings()).status == "ok"
    copy = tmp_path / "weights"
    shutil.copytree(mini.folder().parent, copy)
    weights = copy / "base" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    monkeypatch.setattr(mini, "_WEIGHTS", copy)
    found = next(models.mini_findings())
    assert (found.status, found.value.startswith("damaged: ")) == ("missing", True)


def test_pack_found_in_the_stated_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PIU_LORA_PACK", raising=False)
    assert models.pack_folder(None) == Path.home() / ".insightface" / "models" / "arc2face"
    monkeypatch.setenv("PIU_LORA_PACK", str(tmp_path))
    assert models.pack_folder(None) == tmp_path
    assert models.pack_folder(tmp_path / "given") == tmp_path / "given"


def test_pack(cache: Path, tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    found = by_name(models.pack_findings(pack))
    assert "no such folder" in found["folder"].value
    assert found["arcface.onnx"].advice.endswith(f'--local-dir "{pack}" arcface.onnx')
    pack.mkdir()
    for name in ("2d106det.onnx", "glintr100.onnx"):
        (pack / name).write_bytes(b"x")
    plant(cache, ARC2FACE, "arcface.onnx")
    found = by_name(models.pack_findings(pack))
    assert (found["folder"].status, found["detector"].status) == ("ok", "missing")
    assert found["arcface.onnx"].advice.startswith('cp "')
    for name in ("scrfd_10g_bnkps.onnx", "arcface.onnx"):
        (pack / name).write_bytes(b"x")
    assert {finding.status for finding in models.pack_findings(pack)} == {"ok"}


def test_token_states(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert next(models.token_findings()) == Finding("Token", "Hub token", "missing", "none", "hf auth login")
    (tmp_path / "token").write_text(TOKEN)
    assert next(models.token_findings()).value == "present (stored login)"
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert next(models.token_findings()).value == "present (HF_TOKEN)"

    def leaky() -> bool:
        raise ValueError(f"bad token {TOKEN}")

    monkeypatch.setattr(models, "token_present", leaky)
    assert next(models.token_findings()).value == "could not be determined: ValueError"


# Disk


def test_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10e9, 6e9, 4e9))
    short = next(disk.cache_findings(tmp_path / "not" / "yet", 4_270_000_000))
    assert short.status == "missing"
    assert "4.00 GB free" in short.value
    assert "4.27 GB still to download" in short.value
    assert "HF_HOME" in short.advice
    assert next(disk.cache_findings(tmp_path, 0)).status == "ok"
    assert next(disk.out_findings(tmp_path)).status == "ok"
    assert next(disk.out_findings(Path("/dev/null/out"))).status == "missing"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10e9, 10e9, 1e6))
    assert next(disk.out_findings(tmp_path)).status == "missing"


# Commands


def healthy() -> list[Finding]:
    needs = {need for command in (*commands._EMBEDDED, *commands._REAL, *commands._OTHERS) for need in (*command.needs, *command.partly)}
    return [Finding(section, name, "ok", "") for section, name in sorted(needs)]


def states(findings: list[Finding], base: str | None = None) -> dict[str, str]:
    return {name: finding.status for name, finding in by_name(commands.command_findings(findings, base)).items()}


def without(section: str, name: str) -> list[Finding]:
    return [finding for finding in healthy() if (finding.section, finding.name) != (section, name)]


def test_commands_that_can_run() -> None:
    assert set(states(healthy()).values()) == {"ok"}
    assert not [name for name in states(healthy(), "mini") if "arc2face" in name]
    no_detector = states(without("Face pack", "detector"))
    assert {name for name, status in no_detector.items() if status == "missing"} == {"evaluate arc2face", "bank build"}
    assert no_detector["forget arc2face"] == no_detector["generate arc2face"] == "warning"
    no_weights = states(without("Models", "Arc2Face"))
    assert {name for name, status in no_weights.items() if status == "missing"} == {
        f"{verb} arc2face" for verb in ("forget", "generate", "evaluate")
    }
    assert states(without("onnxruntime", "import"))["forget mini"] == "missing"


def test_what_a_command_needs_is_named() -> None:
    found = by_name(commands.command_findings([], None))
    assert found["forget mini"].value == "needs torch (Python), diffusers (Python), peft (Python) and 8 more"


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
    assert [size(count) for count in (0, 999, 2e3, 1.5e6, 3.44e9)] == ["0 bytes", "999 bytes", "2.0 kB", "1.5 MB", "3.44 GB"]


def test_table_shows_a_cure_once() -> None:
    rows = (Finding("S", "a", "missing", "x", "do this"), Finding("S", "bb", "missing", "y", "do this"))
    text = Report(rows).table()
    assert text.count("> do this") == 1
    assert "  missing  bb  y" in text
    assert text.endswith("the embedded base cannot be used yet")


def test_command_json_without_network_or_secrets(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert {tuple(sorted(finding)) for finding in report["findings"]} == {("advice", "name", "section", "status", "value")}
    assert {finding["status"] for finding in report["findings"]} <= {"ok", "warning", "missing"}
    sections = dict.fromkeys(finding["section"] for finding in report["findings"])
    assert list(sections) == ["Python", "Device", "onnxruntime", "Models", "Face pack", "Token", "Disk", "Commands"]
    everything = result.stdout + result.stderr + text.stdout + text.stderr
    assert "present (HF_TOKEN)" in everything
    assert not [part for part in (TOKEN, TOKEN[:8], TOKEN[-8:]) if part in everything]
    assert "network" not in everything
    assert not cache.exists()


def test_command_exits_3_when_the_embedded_base_is_broken(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = piu("doctor", "--base", "mini")
    assert result.returncode == 3
    assert "missing  forget mini    needs import (onnxruntime)" in result.stdout
    assert "arc2face" not in result.stdout.split("Commands")[1]
    assert "Traceback" not in result.stderr


def test_command_survives_every_probe_failing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> Any:
        raise RuntimeError("no")

    for name in (
        "package_findings",
        "import_torch",
        "host_findings",
        "runtime_findings",
        "cache_folder",
        "out_findings",
        "command_findings",
    ):
        monkeypatch.setattr(doctor, name, fail)
    for name in ("mini_findings", "arc2face_shelves", "pack_findings", "token_present"):
        monkeypatch.setattr(models, name, fail)
    result = piu("doctor", "--json")
    assert result.returncode == 3
    values = [finding["value"] for finding in json.loads(result.stdout)["findings"]]
    assert values
    assert all(value.startswith("could not be determined: RuntimeError") for value in values)


def test_command_survives_a_missing_hub_client(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> Any:
        raise ModuleNotFoundError("No module named 'huggingface_hub'")

    for place, name in ((hub, "cache_folder"), (doctor, "cache_folder"), (models, "cached_file"), (models, "token_present")):
        monkeypatch.setattr(place, name, absent)
    result = piu("doctor")
    assert result.returncode == 0
    assert "arc2face  could not be determined: ModuleNotFoundError" in result.stdout


def test_command_refuses_an_unknown_base() -> None:
    result = piu("doctor", "--base", "arc3face")
    assert result.returncode == 2
    assert "'arc3face'" in result.stderr
