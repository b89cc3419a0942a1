"""How many samples fit through the model at once."""

import gc
import logging
from collections.abc import Callable
from typing import Literal, TypeVar

import torch

from piu_lora.errors import TrainingFailed

__all__ = ["MicroBatch", "is_out_of_memory"]

_log = logging.getLogger("piu_lora")
# CUDA's driver and libraries, MPS, and the CPU allocator on Linux and on Windows raise plain RuntimeErrors.
_SIGNS = ("out of memory", "STATUS_ALLOC_FAILED", "can't allocate memory", "not enough memory")
T = TypeVar("T")


class MicroBatch:
    """The size of a micro-batch, lowered when memory runs out.

    Args:
        size: ``auto`` starts at ``batch`` and is halved as often as needed; a number is kept.
        batch: samples of a batch.
    """

    def __init__(self, size: int | Literal["auto"], batch: int) -> None:
        self.size, self._fixed = (batch, False) if size == "auto" else (size, True)

    def fit(self, work: Callable[[int], T]) -> T:
        """The result of ``work(size)``; begun anew with half the size whenever it runs out of memory.

        Raises:
            TrainingFailed: not even one sample fits, or the size is fixed.
        """
        while True:
            try:
                return work(self.size)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if self._fixed or self.size == 1:
                    raise TrainingFailed(
                        f"out of memory with train.micro_batch = {self.size}; nothing was written. Pass "
                        "train.micro_batch=auto, "
                        "train.gradient_checkpointing=true or train.precision=bf16"
                    ) from error
            # Outside the handler: its traceback would keep the activations alive.
            half = self.size // 2
            _log.warning(
                "out of memory with a micro-batch of %d: going on with %d; the result stays the same",
                self.size,
                half,
            )
            self.size = half
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether it is a device's, its libraries' or the CPU allocator's word for no memory."""
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in _SIGNS)
