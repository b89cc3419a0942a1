"""What ``evaluate`` and ``audit`` take at their defaults on the embedded base, in images of that base.

    python -m benchmarks.default_times --out benchmarks/results/default_times.json

Seconds of the processor, on one thread, so that other work on the machine hardly shows; the calibrating run,
one image of the base, is measured the same way before and after. Counted are rows that pass the UNet,
once for each denoising step and half of the guidance, and those that are decoded.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.output import parser as new_parser
from benchmarks.output import publish
from piu_lora import load_base
from piu_lora.jobs.auditing.audit import audit
from piu_lora.jobs.doctor.models import seconds_an_image
from piu_lora.jobs.evaluation.evaluate import evaluate

__all__ = ["main", "table"]

ADAPTER = Path("adapters/mini-piu-9814e0fb69f07257")
PERSON = "mini-0007"  # whoever it is: the work is the same


@contextmanager
def counted(pipe: Any) -> Iterator[Counter[str]]:
    """Counts calls of the UNet and of the encoder, and the rows in them."""
    counts: Counter[str] = Counter()

    def note(name: str) -> Any:
        def hook(_module: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            first = arguments[0] if arguments else next(iter(keywords.values()))
            counts[f"{name} calls"] += 1
            counts[f"{name} rows"] += len(first)

        return hook

    handles = [
        part.register_forward_pre_hook(note(name), with_kwargs=True)
        for name, part in (("UNet", pipe.unet), ("encoder", pipe.text_encoder), ("decoder", pipe.vae.decoder))
    ]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


def measured(pipe: Any, name: str, work: Any) -> dict[str, Any]:
    """One command."""
    wall, begun = time.perf_counter(), time.process_time()
    with counted(pipe) as counts:
        result = work()
    facts = {
        "cpu_seconds": round(time.process_time() - begun, 1),
        "wall_seconds": round(time.perf_counter() - wall, 1),
        "counts": dict(counts),
    }
    if name == "audit":
        facts["attacks"] = {entry.name: round(entry.seconds, 1) for entry in result.section.attacks}
    return facts


def table(result: dict[str, Any]) -> str:
    """Markdown: processor seconds, images' worth, and calls."""
    image = result["seconds_an_image"]
    lines = [
        "| command at its defaults | processor seconds | images' worth | rows through the UNet | decoded |",
        "|---|--:|--:|--:|--:|",
    ]
    for name in ("evaluate", "audit"):
        facts = result[name]
        counts = facts["counts"]
        lines.append(
            f"| {name} | {facts['cpu_seconds']:.0f} | {facts['cpu_seconds'] / image:.0f} | "
            f"{counts['UNet rows']:,} | {counts['decoder rows']:,} |"
        )
    return "\n".join([*lines, f"\nOne image: {image:.2f} s."])


def main() -> None:
    """Measure and print."""
    parser = new_parser(__doc__)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    pipe = load_base("mini", device="cpu")
    images = [seconds_an_image(clock=time.process_time)]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report"
        evaluated = measured(pipe, "evaluate", lambda: evaluate(ADAPTER, PERSON, pipe, report))
        images.append(seconds_an_image(clock=time.process_time))
        audited = measured(pipe, "audit", lambda: audit(ADAPTER, PERSON, pipe, report))
        images.append(seconds_an_image(clock=time.process_time))
    facts = {"seconds_an_image": round(sum(images) / len(images), 3), "images": images}
    result = {**facts, "evaluate": evaluated, "audit": audited}
    publish(table(result), result, out, None)


if __name__ == "__main__":
    main()
