from pathlib import Path

import pytest
import torch

from piu_lora.model.mini.hosts import photographs as made
from piu_lora.model.mini.hosts.expression import train_expression, trained_adapter
from piu_lora.model.mini.hosts.lcm import train_lcm, trained_lora
from piu_lora.model.mini.hosts.photographs import EXPRESSIONS, average_surface, photographs


@pytest.mark.slow
def test_hosts_are_trained_by_their_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step each, on a few photographs that are rendered once; the base itself is in neither."""
    monkeypatch.setattr(made, "_PEOPLE", 2)
    assert photographs(tmp_path).latents.shape == (2, 6, 8, 12, 12)
    assert photographs(tmp_path).expressions.shape == (2, 6, len(EXPRESSIONS))
    train_lcm(tmp_path, 1, batch=2)
    lora = trained_lora(tmp_path)
    assert all(name.endswith((".lora_A.weight", ".lora_B.weight")) for name in lora)
    train_expression(tmp_path, 1, batch=2)
    adapter = trained_adapter(tmp_path)
    assert {name.split(".")[0] for name in adapter} == {"image_proj", "ip_adapter"}


def test_the_average_head_is_nobody() -> None:
    first, second = (average_surface(2, torch.Generator().manual_seed(seed)) for seed in (0, 0))
    assert first.shape == (2, 3, 96, 96)
    assert torch.equal(first, second)
