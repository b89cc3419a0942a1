"""What several rooms need."""

import os
import signal

# Before torch is imported: of several test processes side by side, each is quickest on one thread.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# isort: split

# First of all: whatever imports huggingface_hub from here on talks to this hub.
from tests.hub.session import HUB

# isort: split

import gc
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tests.hub import TOKEN, LoopbackHub

# Inside the fixtures at run time: the process that hands out the tests needs neither torch nor diffusers.
if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

    from piu_lora import ForgetResult
    from piu_lora.config import ForgetConfig
    from piu_lora.identity import IdentityBank


# Whoever starts the tests in the background makes them ignore Ctrl-C, and all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Libraries and tests stay to the end: the collector of garbage need not go through them again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def own_ledger(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test, and nothing that it starts, touches the user's ledger."""
    path = tmp_path_factory.mktemp("ledger") / "ledger.sqlite"
    monkeypatch.setenv("PIU_LORA_LEDGER", str(path))
    monkeypatch.setenv("PIU_LORA_CACHE", str(path.parent / "cache"))
    return path


@pytest.fixture
def ledger_path(tmp_path: Path) -> Path:
    """Where a test may make a ledger of its own; its folder is not there yet."""
    return tmp_path / "private" / "ledger.sqlite"


@pytest.fixture(scope="session")
def pipe() -> "StableDiffusionPipeline":
    """A tiny pipeline; every test gives it back without adapters."""
    from tests.tiny import tiny_pipeline

    return tiny_pipeline()


@pytest.fixture(scope="session")
def bank() -> "IdentityBank":
    from tests.tiny import tiny_bank

    return tiny_bank()


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> "ForgetConfig":
    """Settings of a run of a second: drawing its losses or a probe of full size would take as long again."""
    from piu_lora.config import ForgetConfig
    from tests.tiny import FAST

    monkeypatch.setattr("piu_lora.jobs.forget.loss_curves", lambda history, path: None)
    monkeypatch.setattr("piu_lora.evidence.probe.SAMPLES", 2)
    return ForgetConfig().updated_from_pairs(FAST)


@pytest.fixture(scope="session")
def trained(
    pipe: "StableDiffusionPipeline", bank: "IdentityBank", tmp_path_factory: pytest.TempPathFactory
) -> "ForgetResult":
    """What the fast settings make of person-003 on the tiny base, curves and all; only to be read."""
    from piu_lora import forget
    from piu_lora.config import ForgetConfig
    from tests.tiny import FAST

    out = tmp_path_factory.mktemp("trained") / "adapter"
    return forget("person-003", pipe, out, bank=bank, config=ForgetConfig().updated_from_pairs(FAST))


@pytest.fixture
def forget_fast(
    pipe: "StableDiffusionPipeline", bank: "IdentityBank", fast: "ForgetConfig"
) -> "Callable[..., ForgetResult]":
    """Forget person-003 on the tiny base by the fast settings, with changes to them."""
    from piu_lora import forget

    def run(out: Path, **changes: Any) -> "ForgetResult":
        return forget("person-003", pipe, out, bank=bank, config=fast.updated(changes))

    return run


@pytest.fixture
def drawn(fast: "ForgetConfig", monkeypatch: pytest.MonkeyPatch) -> None:
    """The losses of a fast run are drawn all the same."""
    from piu_lora.evidence import loss_curves

    monkeypatch.setattr("piu_lora.jobs.forget.loss_curves", loss_curves)


@pytest.fixture
def adapter_folder(pipe: "StableDiffusionPipeline", fast: "ForgetConfig", tmp_path: Path) -> Path:
    """A complete adapter folder for the tiny base, with random weights."""
    import torch

    from piu_lora.adapter import BaseRef, Receipt, change_of, write_adapter
    from piu_lora.model import attach, attention_digest, detach, read_weights

    attach(pipe.unet, fast.lora, "made", seed=0)
    generator = torch.Generator().manual_seed(0)
    weights = {
        key: 0.3 * torch.randn(value.shape, generator=generator)
        for key, value in read_weights(pipe.unet, "made").items()
    }
    detach(pipe.unet, "made")
    folder = tmp_path / "adapter"
    folder.mkdir()
    ref = BaseRef("tiny", "tiny", attention_digest(pipe.unet))
    write_adapter(
        folder,
        change_of(weights, "random weights", "unet."),
        Receipt(ref, "piu", fast.to_dict(), {"rule": "nearest", "cosine": 0.5}, {}),
    )
    return folder


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of hub files, for this test and for what it starts."""
    cache = tmp_path / "hub-cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    return cache


@pytest.fixture
def hub(hub_cache: Path) -> Iterator[LoopbackHub]:
    """The hub that huggingface_hub talks to, empty, with an empty cache in front of it."""
    HUB.reset()
    yield HUB
    errors = list(HUB.errors)
    HUB.reset()
    assert not errors, "\n".join(errors)


@pytest.fixture
def writer(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> LoopbackHub:
    """A hub, and a token that may write to it."""
    hub.add_token(TOKEN, "tester", write=True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long uploads meant to wait before they tried again; they no longer do wait."""
    pauses: list[float] = []
    monkeypatch.setattr("piu_lora.hub.upload._pause", pauses.append)
    return pauses


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long huggingface_hub meant to sleep before it tried again; it no longer does sleep."""
    naps: list[float] = []
    clock = SimpleNamespace(**{**vars(time), "sleep": naps.append})
    monkeypatch.setattr("huggingface_hub.utils._http.time", clock)
    monkeypatch.setattr("huggingface_hub.file_download.time", clock)
    return naps
