import math
from dataclasses import dataclass

import pytest
import torch

from piu_lora.config import TrainConfig
from piu_lora.errors import TrainingFailed
from piu_lora.unlearn import TrainHooks, TrainState, train
from piu_lora.unlearn.loop import learning_rate


@dataclass
class Points:
    x: torch.Tensor

    def __getitem__(self, rows: slice) -> "Points":
        return Points(self.x[rows])


class Line:
    """Least squares: the loop knows nothing of faces."""

    def __init__(self) -> None:
        self.weight = torch.nn.Parameter(torch.zeros(3))

    def draw(self, count: int, generator: torch.Generator) -> Points:
        return Points(torch.randn(count, 3, generator=generator))

    def loss(self, draw: Points) -> tuple[torch.Tensor, dict[str, float]]:
        loss = (draw.x @ self.weight - draw.x @ torch.tensor([1.0, -2.0, 0.5])).square().mean()
        return loss, {"loss": float(loss.detach())}


def config(**changes: object) -> TrainConfig:
    return TrainConfig(
        **{"steps": 20, "batch": 8, "accumulation": 1, "lr": 0.05, "checkpoint_every": 5, **changes}
    )  # type: ignore[arg-type]


def run(settings: TrainConfig, **keywords: object) -> tuple[torch.Tensor, list[dict[str, float]]]:
    line = Line()
    history = train(line, [line.weight], settings, 7, **keywords)  # type: ignore[arg-type]
    return line.weight.detach().clone(), history


def interrupted(line: Line, settings: TrainConfig, steps: int) -> TrainState:
    """The last state that a run saves which is interrupted after so many steps."""
    saved: list[TrainState] = []
    seen: list[int] = []
    hooks = TrainHooks(lambda step, terms: seen.append(step), saved.append, lambda: len(seen) == steps)
    with pytest.raises(KeyboardInterrupt):
        train(line, [line.weight], settings, 7, hooks=hooks)
    return saved[-1]


def test_it_minimises() -> None:
    _, history = run(config(steps=200))
    assert history[-1]["loss"] < 0.02 * history[0]["loss"]


def test_same_seed_same_bits() -> None:
    assert torch.equal(run(config())[0], run(config())[0])


def test_one_micro_batch_of_eight_is_eight_of_one() -> None:
    one, eight = run(config(batch=8, accumulation=1)), run(config(batch=1, accumulation=8))
    assert torch.allclose(one[0], eight[0], atol=1e-5)
    assert [terms["loss"] for terms in one[1]] == pytest.approx(
        [terms["loss"] for terms in eight[1]], rel=1e-4
    )


@pytest.mark.parametrize("stop", [1, 7, 10, 19])
def test_stop_and_resume_is_bit_identical(stop: int) -> None:
    whole, history = run(config(schedule="cosine", warmup=3))
    saved: list[TrainState] = []
    seen: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        run(
            config(schedule="cosine", warmup=3),
            hooks=TrainHooks(lambda step, terms: seen.append(step), saved.append, lambda: len(seen) == stop),
        )
    assert saved[-1].step == stop
    resumed, rest = run(config(schedule="cosine", warmup=3), state=saved[-1])
    assert torch.equal(whole, resumed)
    assert history == rest


def test_checkpoints_come_regularly() -> None:
    saved: list[TrainState] = []
    run(config(steps=12), hooks=TrainHooks(on_checkpoint=saved.append))
    assert [state.step for state in saved] == [5, 10]


def test_nan_stops_with_advice() -> None:
    line = Line()
    line.loss = lambda draw: (line.weight.sum() * float("nan"), {"loss": float("nan")})  # type: ignore[method-assign]
    with pytest.raises(TrainingFailed, match=r"nan.*step 1.*train\.lr"):
        train(line, [line.weight], config(), 0)
    assert torch.equal(line.weight, torch.zeros(3))


def test_clipping_bounds_the_step() -> None:
    # With SGD-like first AdamW step the size is lr in any case; what clipping changes is the second moment.
    assert not torch.equal(run(config(clip=1e-3, steps=5))[0], run(config(clip=0.0, steps=5))[0])


def test_learning_rate_follows_the_formula() -> None:
    settings = config(steps=100, warmup=10, schedule="cosine", lr=2.0)
    assert learning_rate(0, settings) == pytest.approx(0.2)
    assert learning_rate(9, settings) == pytest.approx(2.0)
    assert learning_rate(55, settings) == pytest.approx(2.0 * 0.5 * (1 + math.cos(math.pi * 45 / 90)))
    assert learning_rate(99, settings) < 0.01
    assert learning_rate(99, config(steps=100, lr=2.0)) == 2.0
