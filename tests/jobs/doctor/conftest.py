"""What several tests of the doctor need."""

from pathlib import Path

import huggingface_hub.constants
import pytest


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hub cache, no face pack."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setenv("PIU_LORA_PACK", str(tmp_path / "pack"))
    return folder


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The calibrating run takes seconds."""
    monkeypatch.setattr("piu_lora.jobs.doctor.models.seconds_an_image", lambda base: 0.5)
