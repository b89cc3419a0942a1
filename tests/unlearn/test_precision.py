"""fp16 overflows now and then: such a step is left out, said, and never becomes an adapter."""

import logging

import pytest
import torch

from piu_lora.errors import TrainingFailed
from piu_lora.unlearn import TrainHooks, train
from tests.unlearn.test_loop import Line, Points, config, interrupted


class Steep(Line):
    """Its gradients pass through float16 and overflow at the scale that GradScaler begins with."""

    def loss(self, draw: Points) -> tuple[torch.Tensor, dict[str, float]]:
        error = (draw.x.half() @ self.weight.half()).float() - 50 * draw.x.sum(1)
        loss = error.square().mean()
        return loss, {"loss": float(loss.detach())}


class Cliff(Line):
    """Its gradient is not finite at any scale, though its loss is."""

    def loss(self, draw: Points) -> tuple[torch.Tensor, dict[str, float]]:
        loss = self.weight.abs().sqrt().sum()
        return loss, {"loss": float(loss.detach())}


def test_an_overflowing_step_changes_nothing_and_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    line, seen = Steep(), []
    with caplog.at_level(logging.WARNING, "piu_lora"):
        train(
            line,
            [line.weight],
            config(precision="fp16"),
            7,
            hooks=TrainHooks(lambda step, terms: seen.append(line.weight.detach().clone())),
        )
    still = sum(
        torch.equal(before, after) for before, after in zip([torch.zeros(3), *seen], seen, strict=False)
    )
    assert 0 < still < 10
    assert f"the gradients of {still} of 20 steps overflowed" in caplog.text
    assert torch.isfinite(line.weight).all()


@pytest.mark.parametrize("stop", [1, 7])
def test_a_resumed_run_keeps_scale_and_count(stop: int, caplog: pytest.LogCaptureFixture) -> None:
    whole, broken, resumed = Steep(), Steep(), Steep()
    settings = config(precision="fp16")
    train(whole, [whole.weight], settings, 7)
    state = interrupted(broken, settings, stop)
    train(resumed, [resumed.weight], settings, 7, state=state)
    assert torch.equal(whole.weight, resumed.weight)
    assert caplog.messages[0] == caplog.messages[-1]


def test_gradients_that_fit_no_scale_end_the_run() -> None:
    line = Cliff()
    with pytest.raises(TrainingFailed, match=r"fp16 overflows at step 17 .*precision=bf16 or fp32"):
        train(line, [line.weight], config(precision="fp16", steps=100), 7)
    assert torch.equal(line.weight, torch.zeros(3))
