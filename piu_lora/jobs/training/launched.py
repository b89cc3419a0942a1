"""The processes that a launcher started; the only module that touches accelerate.

``accelerate launch --multi_gpu --num_processes 2 -m piu_lora forget ...``, with ``--device cpu`` for two
processes on the CPU; ``torchrun --nproc_per_node 2 -m piu_lora forget ...`` does the same.
"""

import atexit
import logging
import os
from collections.abc import Sequence
from datetime import timedelta

import torch

from piu_lora.errors import EnvironmentProblem
from piu_lora.unlearn import SingleProcess, Workers

__all__ = ["Launched", "is_main", "launched_workers"]

_log = logging.getLogger("piu_lora")
# How long a process waits for the others before it gives up: longer than any step, shorter than a night.
_PATIENCE = timedelta(minutes=10)


class Launched:
    """The processes of one launch, each with its own device.

    Raises:
        EnvironmentProblem: accelerate cannot bring them together on this kind of device.
    """

    def __init__(self, *, cpu: bool) -> None:
        from accelerate import PartialState

        state = PartialState(cpu=cpu, timeout=_PATIENCE)
        self.rank, self.count, self._device = int(state.process_index), int(state.num_processes), state.device
        # Else every process would train, and write, an adapter of its own.
        if self.count != _world():
            raise EnvironmentProblem(
                f"{_world()} processes were started, but accelerate joins {self.count} on {self._device}; "
                "pass device=cpu or start one"
            )
        atexit.register(_part)
        _log.debug("process %d of %d on %s", self.rank + 1, self.count, self._device)

    def sum(self, tensors: Sequence[torch.Tensor]) -> None:
        """Add up over all processes: one message, in place."""
        from accelerate.utils import reduce

        flat = torch.cat([tensor.detach().flatten() for tensor in tensors]).to(self._device)
        total = reduce(flat, reduction="sum")
        for tensor, part in zip(tensors, total.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.detach().copy_(part.view_as(tensor))

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        votes = torch.tensor([float(flag)])
        self.sum([votes])
        return bool(votes.item())


def launched_workers(device: torch.device) -> Workers:
    """All processes of this run; just this one unless it was started by a launcher."""
    if _world() > 1:
        return Launched(cpu=device.type == "cpu")
    if _asked_for_several():
        _log.warning(
            "accelerate started one process, whatever --num_processes says; "
            "for several pass --multi_gpu to `accelerate launch`, "
            "and on the CPU device=cpu to piu-lora"
        )
    return SingleProcess()


def is_main() -> bool:
    """Whether this is the process that writes and talks."""
    return _world() == 1 or os.environ.get("RANK", "0") == "0"


def _world() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _asked_for_several() -> bool:
    """Whether accelerate was told of several processes and started one: it sets the port only then."""
    return (
        "WORLD_SIZE" not in os.environ and "ACCELERATE_USE_CPU" in os.environ and "MASTER_PORT" in os.environ
    )


def _part() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
