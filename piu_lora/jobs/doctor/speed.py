"""How fast this machine is: seconds for one image of the embedded base, by which to judge other times."""

import time
from collections.abc import Callable, Iterator

from piu_lora.jobs.doctor.finding import Finding

__all__ = ["seconds_an_image", "speed_findings"]


def seconds_an_image(rounds: int = 3, clock: Callable[[], float] = time.perf_counter) -> float:
    """For one image of the embedded base at its default steps, alone in its batch: the fastest of some
    rounds, without what loading and the first image take.

    Args:
        clock: seconds; ``time.process_time`` for those of the processor.
    """
    import torch

    from piu_lora.config import ForgetConfig
    from piu_lora.model import find_family, generate, load_base, mini

    pipe = load_base("mini", device="cpu")
    settings = ForgetConfig.preset(find_family("mini")).evaluation
    embedding = mini.conditioning_bank().embeddings[:1].to(torch.float32)

    def one_image() -> float:
        begun = clock()
        generate(pipe, embedding, [0], steps=settings.steps, guidance=settings.guidance)
        return clock() - begun

    one_image()
    return min(one_image() for _ in range(rounds))


def speed_findings() -> Iterator[Finding]:
    """The calibrating run: the documentation states times as multiples of it."""
    yield Finding("Device", "one image", "ok", f"{seconds_an_image():.2f} s on the embedded base")
