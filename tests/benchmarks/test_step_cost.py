"""The cost table counts what the package really runs."""

from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.step_cost import PAPER, count_memory, our_flops, table
from piu_lora.model import adapters_disabled
from piu_lora.unlearn import Problem, TrainedModel
from piu_lora.unlearn.baselines.piu_dense import Batch
from piu_lora.unlearn.piu import PiuObjective
from tests.tiny import tiny_pipeline


def test_counted_passes_are_those_of_the_objective(tmp_path: Path) -> None:
    pipe = tiny_pipeline()
    schedule, rows = (
        DDPMScheduler.from_config(pipe.scheduler.config),
        torch.nn.functional.normalize(torch.randn(9, 16)),
    )
    model = TrainedModel(
        pipe.unet,
        lambda e: torch.randn(len(e), 8, 32),
        lambda: adapters_disabled(pipe.unet),
        schedule.add_noise,
        1000,
    )
    objective = PiuObjective(Problem.of_one(rows[:3], rows[3], rows[4:]), model, PAPER)
    draw = objective.draw(1, torch.Generator().manual_seed(0))
    forget, retain = model.encode(draw.forget), model.encode(draw.retain)
    batch = Batch(
        draw.forget_latents, draw.forget_times, forget, draw.retain_latents, draw.retain_times, retain
    )
    counted = our_flops(pipe.unet, batch, objective.anchors)
    with FlopCounterMode(display=False) as counter:
        objective.loss(draw)[0].backward()
    assert counter.get_total_flops() == counted["teacher"] + counted["student"]


def test_memory_on_the_shape_of_stable_diffusion() -> None:
    memory = count_memory()
    assert memory["official"]["parameters"] == 36_873_600  # 4.29 % of the UNet
    assert memory["ours"]["parameters"] == 16 * 71_424
    assert 2 * 16 * 71_424 < memory["ours"]["file"] < 2.35e6


def test_table_shows_ratios() -> None:
    cost = {"teacher": 3e12, "student": 3e12, "sample": 6e12, "run": 7e16}
    memory = dict.fromkeys(
        ("parameters", "file", "weights", "teacher", "gradients", "optimizer", "total"), 2e6
    )
    result = {
        "flops": {"official": cost, "ours": {name: value / 2 for name, value in cost.items()}},
        "memory": {"official": memory, "ours": {**memory, "teacher": 0}},
        "seconds": {"official": [2.0, 3.0, 4.0], "ours": [1.0, 1.0, 1.0]},
        "peak": {"official": 3_000_000, "ours": 1_000_000},
        "settings": {"batch": 16, "accumulation": 2},
    }
    lines = table(result).splitlines()
    assert "| 3.00 | 1.50 | 2.00 |" in lines[2]
    assert any(line.endswith("| 2 | 0 | - |") for line in lines)
    assert lines[-2].endswith("| 3.000 | 1.000 | 3.00 (2.00 to 4.00) |")


@pytest.mark.slow
def test_flops_on_the_shape_of_stable_diffusion() -> None:
    from benchmarks.step_cost import count_flops

    counted = count_flops()
    assert counted["official"]["sample"] == pytest.approx(5.41e12, rel=0.001)
    assert counted["ours"]["sample"] == pytest.approx(5.02e12, rel=0.001)
