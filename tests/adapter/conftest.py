"""What tests of adapters in a host's pipeline share."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline


@pytest.fixture
def host() -> "StableDiffusionPipeline":
    """A pipeline of the host's own, which a test may change."""
    from tests.tiny import tiny_pipeline

    return tiny_pipeline()


@pytest.fixture
def folder(host: "StableDiffusionPipeline", tmp_path: Path) -> Path:
    """An adapter for it, in UNet and text encoder."""
    from tests.adapter.stacks import write_random

    return write_random(host, tmp_path / "ours", 1, encoder=True).path
