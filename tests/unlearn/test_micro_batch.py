"""Memory that runs out changes how a step is computed, never what it computes."""

import logging

import pytest
import torch

from piu_lora.errors import TrainingFailed
from piu_lora.unlearn import train
from piu_lora.unlearn.micro_batch import MicroBatch, is_out_of_memory
from tests.unlearn.test_loop import Line, Points, config


class Cramped(Line):
    """Holds so many samples and no more."""

    def __init__(self, room: int, error: RuntimeError) -> None:
        super().__init__()
        self.room, self.error, self.sizes = room, error, []

    def loss(self, draw: Points) -> tuple[torch.Tensor, dict[str, float]]:
        self.sizes.append(len(draw.x))
        if len(draw.x) > self.room:
            raise self.error
        return super().loss(draw)


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
]
LIBRARIES = [
    "CUDA error: out of memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
]


@pytest.mark.parametrize("error", ERRORS, ids=["cuda", "cpu"])
@pytest.mark.parametrize("room", [1, 3, 5])
def test_a_batch_that_does_not_fit_gives_the_same_result(
    error: RuntimeError, room: int, caplog: pytest.LogCaptureFixture
) -> None:
    roomy, cramped = Line(), Cramped(room, error)
    settings = config(batch=8, accumulation=2, steps=6)
    expected = train(roomy, [roomy.weight], settings, 7)
    with caplog.at_level(logging.WARNING, "piu_lora"):
        found = train(cramped, [cramped.weight], settings, 7)
    torch.testing.assert_close(cramped.weight, roomy.weight, atol=1e-5, rtol=0)
    assert [terms["loss"] for terms in found] == pytest.approx(
        [terms["loss"] for terms in expected], rel=1e-4
    )
    lowered = [record.message for record in caplog.records]
    assert lowered[0].startswith("out of memory with a micro-batch of 8: going on with 4")
    # It is lowered once for the whole run, not in every step anew.
    assert len(lowered) == {1: 3, 3: 2, 5: 1}[room]


def test_a_last_micro_batch_that_is_smaller_weighs_less() -> None:
    whole, uneven = Line(), Line()
    train(whole, [whole.weight], config(batch=8, steps=5), 7)
    train(uneven, [uneven.weight], config(batch=8, steps=5, micro_batch=3), 7)
    torch.testing.assert_close(uneven.weight, whole.weight, atol=1e-5, rtol=0)


def test_a_fixed_micro_batch_is_kept_and_says_what_to_do() -> None:
    cramped = Cramped(1, ERRORS[0])
    with pytest.raises(
        TrainingFailed, match=r"train\.micro_batch = 4.*micro_batch=auto.*gradient_checkpointing"
    ):
        train(cramped, [cramped.weight], config(micro_batch=4), 0)
    assert cramped.sizes == [4]
    assert torch.equal(cramped.weight, torch.zeros(3))


def test_not_even_one_sample() -> None:
    cramped = Cramped(0, ERRORS[0])
    with pytest.raises(TrainingFailed, match=r"train\.micro_batch = 1"):
        train(cramped, [cramped.weight], config(), 0)


@pytest.mark.parametrize("message", LIBRARIES)
def test_libraries_say_it_in_their_own_words(message: str) -> None:
    assert is_out_of_memory(RuntimeError(message))


def test_other_errors_are_not_mistaken_for_it() -> None:
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        MicroBatch("auto", 8).fit(lambda _size: (_ for _ in ()).throw(RuntimeError("shapes")))
