"""The training loop shared by every piece of the embedded base: seeded, resumable, over one or more
processes.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from rich.progress import Progress
from torch.multiprocessing.spawn import spawn

__all__ = ["FitSettings", "Schedule", "Step", "fit", "launch", "rank_and_world"]

Step = Callable[[torch.Generator], tuple[torch.Tensor, dict[str, float]]]


class Schedule:
    """Learning rate over time: linear warm-up, then half a cosine down to a hundredth."""

    def __init__(self, peak: float, steps: int, warmup: int = 100) -> None:
        self.peak, self.steps, self.warmup = peak, steps, warmup

    def __call__(self, step: int) -> float:
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(self.steps - self.warmup, 1)
        return self.peak * (0.01 + 0.99 * 0.5 * (1 + float(torch.cos(torch.tensor(progress * torch.pi)))))


def rank_and_world() -> tuple[int, int]:
    """This process's number and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def launch(job: Callable[..., object], processes: int, *arguments: object) -> None:
    """Run ``job(*arguments)`` in ``processes`` processes that average their gradients (gloo)."""
    if processes == 1:
        torch.set_flush_denormal(True)
        job(*arguments)
        return
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ["MASTER_PORT"] = str(29500 + os.getpid() % 500)
    spawn(_worker, args=(job, processes, arguments), nprocs=processes)


def _worker(rank: int, job: Callable[..., object], processes: int, arguments: tuple[object, ...]) -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    dist.init_process_group("gloo", rank=rank, world_size=processes)
    try:
        job(*arguments)
    finally:
        dist.destroy_process_group()


@dataclass(frozen=True)
class FitSettings:
    """How a piece is trained.

    Attributes:
        ema: decay of the moving average of the weights, a step.
        ema_every, save_every: steps between two updates of the average, and between two checkpoints.
    """

    steps: int
    lr: float
    seed: int
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    ema: float = 0.998
    ema_every: int = 1
    save_every: int = 250


def fit(
    name: str, model: torch.nn.Module, step: Step, folder: Path, settings: FitSettings
) -> torch.nn.Module:
    """Train ``model`` in place and return it holding its moving average.

    Every step draws from a generator seeded by (seed, step, process), so a resumed run equals an
    uninterrupted one. The checkpoint is ``folder/NAME.pt``; a finished one is simply loaded.
    """
    rank, world = rank_and_world()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay, fused=True
    )
    average = {key: value.detach().clone().float() for key, value in model.state_dict().items()}
    path = folder / f"{name}.pt"
    start = 0
    if path.exists():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average, start = state["average"], state["step"]
    steps, ema_every = settings.steps, settings.ema_every
    schedule = Schedule(settings.lr, steps)
    with Progress(disable=rank > 0) as bar:
        task = bar.add_task(name, total=steps, completed=start)
        for index in range(start, steps):
            for group in optimizer.param_groups:
                group["lr"] = schedule(index)
            draw = (settings.seed * 1_000_003 + index) * 64 + rank
            torch.manual_seed(draw)  # dropout
            generator = torch.Generator().manual_seed(draw)
            loss, terms = step(generator)
            loss.backward()
            _average_gradients(parameters, world)
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if (index + 1) % ema_every == 0:
                _update_average(average, model, min(settings.ema**ema_every, (1 + index) / (10 + index)))
            if rank == 0:
                words = ", ".join(f"{key} {value:.4f}" for key, value in terms.items())
                bar.update(task, advance=1, description=f"{name} {words}")
                if (index + 1) % settings.save_every == 0 or index + 1 == steps:
                    _save(
                        {
                            "model": model.state_dict(),
                            "optimizer": optimizer.state_dict(),
                            "average": average,
                            "step": index + 1,
                        },
                        path,
                    )
    model.load_state_dict({key: value.to(model.state_dict()[key].dtype) for key, value in average.items()})
    return model.eval()


@torch.no_grad()
def _update_average(average: dict[str, torch.Tensor], model: torch.nn.Module, decay: float) -> None:
    for key, value in model.state_dict().items():
        average[key].lerp_(value.float(), 1 - decay)


def _average_gradients(parameters: Iterable[torch.nn.Parameter], world: int) -> None:
    if world == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    dist.all_reduce(flat)
    flat /= world
    offset = 0
    for gradient in gradients:
        gradient.copy_(flat[offset : offset + gradient.numel()].view_as(gradient))
        offset += gradient.numel()


def _save(state: dict[str, object], path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    temporary.replace(path)
