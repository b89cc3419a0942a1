"""Models and face pack, on a planted cache."""

import shutil
from pathlib import Path

import pytest

from piu_lora.folders import default_pack
from piu_lora.jobs.doctor import models
from piu_lora.jobs.doctor.finding import Finding
from piu_lora.model import find_family
from piu_lora.model.families import arc2face
from piu_lora.model.families.arc2face import ARC2FACE, SD15
from tests.jobs.doctor.planted import by_name, plant

assert arc2face.FAMILY.source
MEASURED = models.seconds_an_image
FILES = {download.label: download.files for download in arc2face.FAMILY.source.downloads}


def test_empty_cache_names_the_downloads(cache: Path) -> None:
    found = by_name(models.base_findings(arc2face.FAMILY))
    assert found["Arc2Face"].status == "missing"
    assert "0 of 4 files cached, about 3.93 GB to download" in found["Arc2Face"].value
    assert found["Arc2Face"].advice == " ".join(
        ["hf download", ARC2FACE[0], "--revision", ARC2FACE[1], *FILES["Arc2Face"]]
    )


def test_only_what_is_missing_is_fetched(cache: Path) -> None:
    for file in FILES["Stable Diffusion 1.5"]:
        if file != "vae/config.json":
            plant(cache, SD15, file)
    plant(cache, (ARC2FACE[0], "0" * 40), "encoder/config.json")  # another revision does not count
    found = by_name(models.base_findings(arc2face.FAMILY))
    assert (
        found["Stable Diffusion 1.5"].advice == f"hf download {SD15[0]} --revision {SD15[1]} vae/config.json"
    )
    assert "0 of 4 files cached" in found["Arc2Face"].value


def test_complete_cache(cache: Path) -> None:
    for repository, files in ((ARC2FACE, FILES["Arc2Face"]), (SD15, FILES["Stable Diffusion 1.5"])):
        for file in files:
            plant(cache, repository, file)
    assert {(finding.status, finding.advice) for finding in models.base_findings(arc2face.FAMILY)} == {
        ("ok", "")
    }


def test_embedded_base(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from piu_lora.model import mini

    assert next(models.base_findings(find_family("mini"))) == Finding(
        "Models", "mini", "ok", "embedded, one image in 0.50 s"
    )
    copy = tmp_path / "weights"
    shutil.copytree(mini.folder().parent, copy)
    monkeypatch.setattr(models, "seconds_an_image", MEASURED)
    weights = copy / "base" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    monkeypatch.setattr(mini, "_WEIGHTS", copy)
    found = next(models.base_findings(find_family("mini")))
    assert (found.status, found.value.startswith("cannot be used: ")) == ("missing", True)


def test_pack_is_looked_for_in_the_stated_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PIU_LORA_PACK", raising=False)
    assert default_pack() == Path.home() / ".insightface" / "models" / "arc2face"
    monkeypatch.setenv("PIU_LORA_PACK", str(tmp_path))
    assert default_pack() == tmp_path
    assert all(str(tmp_path) in finding.value for finding in models.pack_findings(None))
    assert all(
        str(tmp_path / "given") in finding.value for finding in models.pack_findings(tmp_path / "given")
    )


def test_pack(tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    found = by_name(models.pack_findings(pack))
    assert "does not exist" in found["detector"].value
    assert found["arcface.onnx"].advice == f'piu-lora bank models --pack "{pack}"'
    pack.mkdir()
    for name in ("2d106det.onnx", "glintr100.onnx"):
        (pack / name).write_bytes(b"x")
    assert {finding.status for finding in models.pack_findings(pack)} == {"missing"}
    for name in ("scrfd_10g_bnkps.onnx", "arcface.onnx"):
        (pack / name).write_bytes(b"x")
    assert {finding.status for finding in models.pack_findings(pack)} == {"ok"}
