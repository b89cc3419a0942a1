from pathlib import Path

import pytest
import torch

from piu_lora.identity import IdentityBank
from piu_lora.model import load_base
from piu_lora.model.mini import __main__ as command
from piu_lora.model.mini import dataset, export, recognizers
from piu_lora.model.mini.training import FitSettings, Schedule, fit


def run(folder: Path, stop_at: int | None = None) -> torch.Tensor:
    """Six steps of a little regression with dropout, interrupted before step ``stop_at``."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))
    count = iter(range(100))

    def step(generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        if next(count) == stop_at:
            raise KeyboardInterrupt
        inputs = torch.randn(16, 4, generator=generator)
        loss = (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()
        return loss, {"loss": float(loss.detach())}

    trained = fit("line", model, step, folder, FitSettings(steps=6, lr=0.01, seed=3, save_every=2))
    return torch.cat([value.flatten() for value in trained.state_dict().values()])


def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = run(tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", stop_at=3)
    assert torch.equal(run(tmp_path / "b"), whole)
    assert torch.equal(run(tmp_path / "a"), whole)  # a finished one is only loaded


def test_schedule_warms_up_and_ends_low() -> None:
    schedule = Schedule(2.0, steps=1000, warmup=100)
    assert schedule(0) == pytest.approx(0.02)
    assert schedule(100) == pytest.approx(2.0)
    assert schedule(999) == pytest.approx(0.02, rel=0.01)


def test_training_and_bank_people_never_meet() -> None:
    first, second = dataset.people(50, dataset.TRAIN_SEED), dataset.people(50, dataset.BANK_SEED)
    assert torch.cdist(first, second).min() > 0.5


@pytest.mark.slow
def test_everything_is_made_from_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole recipe with tiny numbers: render, train every piece, export, load."""
    for module in (dataset, recognizers):
        monkeypatch.setattr(module, "TRAIN_IDENTITIES", 40)
    monkeypatch.setattr(export, "BANK_IDENTITIES", 6)
    monkeypatch.setattr(command, "RECIPE", dict.fromkeys(command.RECIPE, (2, 1)))
    weights = tmp_path / "weights"
    command.everything(work=tmp_path / "work", out=weights, processes=1)
    pipe = load_base(weights / "base")
    assert pipe.text_encoder.config.piu_lora["base"] == "arc2face-mini"
    assert len(IdentityBank.load(weights / "bank.safetensors")) == 6
    assert (weights / "evaluating.onnx").exists()
