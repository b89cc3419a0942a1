"""What several rooms need."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from piu_lora.adapter import BaseRef, Receipt, write_adapter
from piu_lora.config import ForgetConfig
from piu_lora.identity import IdentityBank
from piu_lora.model import attach, attention_digest, detach, read_weights
from tests.tiny import FAST, tiny_bank, tiny_pipeline


@pytest.fixture(scope="session")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> StableDiffusionPipeline:
    """A tiny pipeline; every test gives it back without adapters."""
    return tiny_pipeline()


@pytest.fixture(scope="session")
def bank() -> IdentityBank:
    return tiny_bank()


@pytest.fixture
def fast() -> ForgetConfig:
    return ForgetConfig().updated_from_pairs(FAST)


@pytest.fixture
def adapter_folder(pipe: StableDiffusionPipeline, fast: ForgetConfig, tmp_path: Path) -> Path:
    """A complete adapter folder for the tiny base, with random weights."""
    attach(pipe.unet, fast.lora, "made", seed=0)
    generator = torch.Generator().manual_seed(0)
    weights = {key: 0.3 * torch.randn(value.shape, generator=generator) for key, value in read_weights(pipe.unet, "made").items()}
    detach(pipe.unet, "made")
    folder = tmp_path / "adapter"
    folder.mkdir()
    ref = BaseRef("tiny", "tiny", attention_digest(pipe.unet))
    write_adapter(folder, weights, Receipt(ref, "piu", fast.to_dict(), {"rule": "nearest", "cosine": 0.5}, {}))
    return folder
