"""What ships: small enough, loadable by stock libraries, and of the quality that the README states."""

import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from diffusers import StableDiffusionPipeline

from piu_lora import generate, load_base
from piu_lora.model import describe, mini
from piu_lora.model.mini.export import bank_portraits

WEIGHTS = mini.folder().parent


@pytest.fixture(scope="module")
def base() -> StableDiffusionPipeline:
    return load_base("mini")


def test_the_base_fits_in_25_megabytes_and_its_hosts_in_10() -> None:
    sizes = {path: path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()}
    hosts = sum(size for path, size in sizes.items() if WEIGHTS / "hosts" in path.parents)
    assert 0 < hosts <= 10e6
    assert sum(sizes.values()) - hosts <= 25e6


def test_classes_are_those_of_arc2face(base: StableDiffusionPipeline) -> None:
    names = {
        name: type(getattr(base, name)).__name__
        for name in ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
    }
    assert names == {
        "unet": "UNet2DConditionModel",
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "tokenizer": "CLIPTokenizer",
        "scheduler": "DPMSolverMultistepScheduler",
    }
    assert [type(block).__name__ for block in base.unet.down_blocks] == ["CrossAttnDownBlock2D"] * 3 + [
        "DownBlock2D"
    ]
    assert [type(block).__name__ for block in base.unet.up_blocks] == ["UpBlock2D"] + [
        "CrossAttnUpBlock2D"
    ] * 3
    assert base.unet.down_blocks[2].has_cross_attention
    assert describe(base).family.name == "mini"


def test_the_differentiable_recognizer_is_the_onnx_one() -> None:
    from piu_lora.model.mini.differentiable import differentiable_recognizer

    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    mine = differentiable_recognizer()(images)
    theirs = mini.conditioning_recognizer().embed(images.detach())
    assert torch.allclose(mine, theirs, atol=1e-4)
    mine[:, 0].sum().backward()
    assert images.grad is not None
    assert float(images.grad.abs().max()) > 0


@pytest.mark.parametrize("name", ["conditioning", "evaluating"])
def test_recognizers_keep_the_contract_of_a_real_one(name: str) -> None:
    session = onnxruntime.InferenceSession(str(WEIGHTS / f"{name}.onnx"), providers=["CPUExecutionProvider"])
    (single,) = session.get_inputs()
    size = single.shape[2]
    assert single.shape[1:] == [3, size, size]
    faces = np.random.default_rng(0).uniform(-1, 1, (3, 3, size, size)).astype(np.float32)
    together = session.run(None, {single.name: faces})[0]
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert np.allclose(session.run(None, {single.name: faces[:1]})[0], together[:1], atol=1e-5)


def test_the_two_recognizers_differ() -> None:
    first, second = mini.conditioning_recognizer(), mini.evaluating_recognizer()
    assert first.size != second.size
    assert first.id.sha256 != second.id.sha256


def test_bank_is_what_the_renderer_and_recognizer_make() -> None:
    bank = mini.conditioning_bank()
    assert len(bank) >= 1000
    assert bank.labels.bincount().min() >= 8
    assert bank.ids == mini.evaluating_bank().ids
    assert bank.recognizer == mini.conditioning_recognizer().id
    fresh = mini.conditioning_recognizer().embed(bank_portraits(7).float() / 255)
    assert (fresh * bank.of("mini-0007")).sum(1).min() > 0.99


@pytest.mark.parametrize("every", [68, pytest.param(17, marks=pytest.mark.slow)])
def test_recognition_of_people_unseen_in_training(every: int) -> None:
    """Fresh photographs of 15 people, or of 60, among the whole bank."""
    rows = range(0, 1020, every)
    faces = torch.cat([bank_portraits(row, 11)[9:] for row in rows]).float() / 255
    own = torch.tensor([row for row in rows for _ in range(2)])
    for recognizer, bank in (
        (mini.conditioning_recognizer(), mini.conditioning_bank()),
        (mini.evaluating_recognizer(), mini.evaluating_bank()),
    ):
        cosines = recognizer.embed(faces) @ bank.centroids.T
        assert (cosines.argmax(1) == own).float().mean() >= 0.97
        assert cosines[torch.arange(len(own)), own].mean() >= 0.75


@pytest.mark.parametrize("every", [125, pytest.param(50, marks=pytest.mark.slow)])
def test_generated_faces_are_recognised(base: StableDiffusionPipeline, every: int) -> None:
    bank = mini.conditioning_bank()
    rows = list(range(3, 1000, every))
    conditions = torch.stack([bank.of(bank.ids[row])[0] for row in rows])
    begun = time.process_time()
    faces = generate(base, conditions, rows, steps=15, guidance=3.0)
    assert (time.process_time() - begun) / len(
        rows
    ) < 1.5  # 0.3 s is measured in benchmarks/; this only catches an accident
    cosines = mini.conditioning_recognizer().embed(faces) @ bank.centroids.T
    assert cosines[torch.arange(len(rows)), torch.tensor(rows)].mean() >= 0.6
    assert (cosines.argmax(1) == torch.tensor(rows)).float().mean() >= 0.75


def test_photographs_of_a_person_find_that_person(tmp_path: Path) -> None:
    from PIL import Image

    from piu_lora.identity import resolve_identity

    for index, picture in enumerate(bank_portraits(42, 11)[9:]):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(tmp_path / f"{index}.png")
    bank = mini.conditioning_bank()
    subject = resolve_identity(tmp_path, bank, mini.conditioning_recognizer())
    assert subject.embeddings.shape == (2, bank.width)
    assert (bank.centroids @ subject.embeddings.mean(0)).argmax() == 42
