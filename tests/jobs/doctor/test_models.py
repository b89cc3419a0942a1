"""Models, face pack, token and disk, on a planted cache."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from piu_lora.jobs.doctor import disk, models
from piu_lora.jobs.doctor.finding import Finding
from piu_lora.model.families.arc2face import ARC2FACE, SD15
from tests.jobs.doctor.planted import TOKEN, by_name, plant

Usage = namedtuple("Usage", "total used free")


# Models, pack, token


def test_empty_cache_names_the_downloads(cache: Path) -> None:
    real, rest = models.arc2face_shelves()
    found = by_name(models.shelf_findings(real))
    assert found["Arc2Face"].status == "missing"
    assert "0 of 4 files cached (0 bytes), about 3.93 GB to download" in found["Arc2Face"].value
    assert found["Arc2Face"].advice == " ".join(
        ["hf download", ARC2FACE[0], "--revision", ARC2FACE[1], *models.ARC2FACE_FILES]
    )
    assert real.to_download + rest.to_download == pytest.approx(4.27e9, rel=0.01)


def test_only_what_is_missing_is_fetched(cache: Path) -> None:
    for file in models.SD15_FILES:
        if file != "vae/config.json":
            plant(cache, SD15, file)
    plant(cache, (ARC2FACE[0], "0" * 40), "encoder/config.json")  # another revision does not count
    real, rest = models.arc2face_shelves()
    found = by_name(models.shelf_findings(rest))
    assert (
        found["Stable Diffusion 1.5"].advice == f"hf download {SD15[0]} --revision {SD15[1]} vae/config.json"
    )
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
