"""Real photographs, the published layout from the loopback Hub, and the ordinary commands, from nothing to an
adapter.
"""

import json
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from piu_lora.adapter import read_adapter
from piu_lora.config import ForgetConfig
from piu_lora.errors import Incompatible
from piu_lora.identity import IdentityBank
from piu_lora.jobs.banks.pack import DETECTOR, DETECTOR_SOURCE
from piu_lora.jobs.forget import forget
from piu_lora.model import describe, load_base
from piu_lora.model.families.arc2face import ARC2FACE, SD15
from tests.arc2face import write_arc2face, write_sd15
from tests.cli.test_cli import piu
from tests.hub import LoopbackHub
from tests.photos import PACK, PORTRAITS, needs_faces
from tests.tiny import tiny_bank

pytestmark = needs_faces
QUICK = [
    "method=piu",
    "train.steps=2",
    "train.batch=2",
    "train.accumulation=1",
    "lora.rank=2",
    "anchor.rule=nearest",
    "evaluation.forget_images=1",
    "evaluation.retain_images=1",
    "evaluation.nearest=1",
    "evaluation.anchor_images=1",
    "evaluation.steps=1",
]
SETTINGS = [part for pair in QUICK for part in ("--set", pair)]


@pytest.fixture
def published(hub: LoopbackHub, tmp_path: Path) -> LoopbackHub:
    """Arc2Face's repository with a real recognizer in it, and the detector's."""
    recognizer = (PACK / "w600k_mbf_int8.onnx").read_bytes()
    hub.add_repository(
        ARC2FACE[0], write_arc2face(tmp_path / "arc2face", recognizer=recognizer), revision=ARC2FACE[1]
    )
    hub.add_repository(SD15[0], write_sd15(tmp_path / "sd15"), revision=SD15[1])
    hub.add_repository(
        DETECTOR_SOURCE[0], {DETECTOR: (PACK / "det_500m_dyn.onnx").read_bytes()}, revision=DETECTOR_SOURCE[1]
    )
    return hub


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Folders of twelve people."""
    folder = tmp_path / "people"
    folder.mkdir()
    for portrait in sorted(PORTRAITS.iterdir())[:12]:
        (folder / portrait.name).symlink_to(portrait)
    return folder


@pytest.mark.slow
def test_from_nothing_to_a_forgotten_person(
    published: LoopbackHub,
    people: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("PIU_LORA_PACK", str(tmp_path / "pack"))
    assert piu("bank", "models").returncode == 0
    built = json.loads(piu("bank", "build", people, "--out", tmp_path / "people.bank", "--json").stdout)
    assert (built["identities"], built["embeddings"], built["rejected"]) == (12, 24, [])
    who = sorted(PORTRAITS.iterdir())[20]
    common = ["--base", "arc2face", "--bank", tmp_path / "people.bank"]
    made = piu("forget", "--identity", who, *common, "--out", tmp_path / "adapter", *SETTINGS, "--json")
    assert made.returncode == 0, made.stderr

    receipt = read_adapter(tmp_path / "adapter").receipt
    assert (receipt.base.id, receipt.base.revision) == ARC2FACE
    assert receipt.counts == {
        "forget_train": 1,
        "forget_held_out": 1,
        "retain_train": 10,
        "retain_held_out": 1,
        "under_another_id": 1,  # somebody who looks like them: cosine 0.27, as 1 stranger in 1,000
    }
    # Random weights draw no faces: every picture is counted as nobody, none as a success.
    figures = json.loads(made.stdout)["evaluation"]["recognizers"]["conditioning"]
    assert figures["no_face"]["forget"] == {"before": 1, "after": 1, "n": 1}
    assert figures["ism"]["forget"]["ratio"] is None
    assert (tmp_path / "adapter" / "report" / "before_after.png").exists()
    assert not [
        path
        for path in (tmp_path / "adapter").rglob("*")
        if path.is_file() and who.name.encode() in path.read_bytes()
    ]

    lean = ("--set", "report.leak_images=0", "--set", "report.sweep_images=0")
    judged = piu(
        "evaluate",
        tmp_path / "adapter",
        "--identity",
        who,
        *common,
        "--out",
        tmp_path / "report",
        *lean,
        "--json",
    )
    assert judged.returncode == 0, judged.stderr
    document = json.loads(judged.stdout)
    lines = {line["name"]: line for line in document["verdict"]["lines"]}
    assert not document["verdict"]["passed"]
    assert lines["no_face"]["value"] == 1
    assert lines["forget_ism"]["reason"] == "no face in any image before"
    assert "impostor pairs cannot resolve a false-accept rate of 0.001" in lines["verified"]["reason"]
    assert not [path for path in (tmp_path / "report").rglob("*") if who.name.encode() in path.read_bytes()]

    drawn = piu(
        "generate",
        "--identity",
        who / "2014.jpg",
        *common,
        "--adapter",
        tmp_path / "adapter",
        "--out",
        tmp_path / "faces.png",
        "--images",
        1,
    )
    assert drawn.returncode == 0, drawn.stderr
    stock = load_base("arc2face", local_files_only=True)
    stock.load_lora_weights(str(tmp_path / "adapter"), weight_name="pytorch_lora_weights.safetensors")
    assert stock.get_active_adapters()


def test_the_base_knows_its_recognizer_once_the_pack_is_there(published: LoopbackHub, tmp_path: Path) -> None:
    assert describe(load_base("arc2face")).recognizer.sha256 == ""
    from piu_lora.jobs.banks.pack import set_up_pack

    _, recognizer = set_up_pack(tmp_path / "pack")
    pipe = load_base("arc2face")
    assert describe(pipe).recognizer == recognizer
    pipe.save_pretrained(tmp_path / "saved")
    assert describe(load_base(tmp_path / "saved")).recognizer == recognizer


def test_a_bank_of_another_recognizer_never_meets_the_base(published: LoopbackHub, tmp_path: Path) -> None:
    from piu_lora.jobs.banks.pack import set_up_pack

    set_up_pack(tmp_path / "pack")
    pipe: StableDiffusionPipeline = load_base("arc2face")
    small = tiny_bank(12, 2)
    rows = torch.nn.functional.pad(small.embeddings, (0, 512 - small.width))
    bank = IdentityBank(rows, small.labels, small.ids, small.recognizer)
    with pytest.raises(
        Incompatible,
        match=(
            r"the bank uses recognizer 'tiny' \(000000000000\), but the base .* uses 'arcface\.onnx'"
            r" \(2b8edda0"
        ),
    ):
        forget(
            "person-001",
            pipe,
            tmp_path / "out",
            bank=bank,
            evaluate=False,
            config=ForgetConfig().updated_from_pairs(QUICK),
        )
    assert not (tmp_path / "out").exists()
