"""What several tests of the doctor need."""

from pathlib import Path

import huggingface_hub.constants
import pytest


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


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The calibrating run takes seconds."""
    monkeypatch.setattr("piu_lora.jobs.doctor.speed.seconds_an_image", lambda: 0.5)
