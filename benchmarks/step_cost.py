"""One optimiser step of piu_lora's PIU beside one of the official recipe: operations, memory, seconds.

Run from the repository's root:

    python -m benchmarks.step_cost [--out FILE.json] [--markdown FILE.md]

Operations and memory are counted on the shape of Stable Diffusion 1.5, on the meta device; seconds and peaks
are measured on the shape of the embedded base, with random weights and conditions, both recipes in turn in
one process.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel

from benchmarks.output import publish
from benchmarks.sd15 import PAPER, build_sd15, meta_batch, official_flops, our_flops
from piu_lora.model import adapters_disabled, attach, trainable
from piu_lora.model.mini.generator import SCHEDULER, build_unet
from piu_lora.unlearn import Problem, TrainedModel, TrainHooks, train
from piu_lora.unlearn.baselines import piu_dense
from piu_lora.unlearn.piu import ObjectiveConfig, PiuObjective

__all__ = [
    "build_sd15",
    "count_flops",
    "count_memory",
    "main",
    "measure_peaks",
    "measure_seconds",
    "official_flops",
    "our_flops",
    "table",
]

RECIPES = ("official", "ours")
_CONDITION, _WIDTH = (8, 160), 128  # of the embedded base


def count_flops() -> dict[str, dict[str, float]]:
    """Floating-point operations by recipe: of one sample's teacher and student passes, and of the paper's
    whole run.
    """
    sample = meta_batch(), torch.empty(1, 77, 768, device="meta")
    counted = {"official": official_flops(build_sd15(), *sample), "ours": our_flops(build_sd15(), *sample)}
    samples = PAPER.train.steps * PAPER.train.batch * PAPER.train.accumulation
    for parts in counted.values():
        parts["sample"] = parts["teacher"] + parts["student"]
        parts["run"] = parts["sample"] * samples
    return counted


def count_memory() -> dict[str, dict[str, float]]:
    """Bytes by recipe, activations apart, in fp32; ``file`` is what is stored: the whole UNet, or the adapter
    in fp16.
    """
    unet = build_sd15()
    weights = 4 * sum(parameter.numel() for parameter in unet.parameters())
    dense = sum(parameter.numel() for parameter in piu_dense.open_attention(unet))
    attach(unet, PAPER.lora, "adapter", seed=0)
    lora = sum(parameter.numel() for parameter in trainable(unet))
    return {
        "official": _memory(dense, weights, teacher=weights, file=weights),
        "ours": _memory(lora, weights + 4 * lora, teacher=0, file=_adapter_bytes(unet)),
    }


def measure_seconds(steps: int, warmup: int, batch: int, accumulation: int) -> dict[str, list[float]]:
    """Seconds of each step by recipe, on the shape of the embedded base; the recipes take turns."""
    official, seconds = (
        _official_step(batch, accumulation),
        dict[str, list[float]]({name: [] for name in RECIPES}),
    )
    mark = time.perf_counter()

    def on_step(step: int, _terms: dict[str, float]) -> None:
        nonlocal mark
        between = time.perf_counter()
        official()
        if step >= warmup:
            seconds["ours"].append(between - mark)
            seconds["official"].append(time.perf_counter() - between)
        mark = time.perf_counter()

    _train_ours(steps + warmup, batch, accumulation, on_step)
    return seconds


def measure_peaks(steps: int, batch: int, accumulation: int) -> dict[str, int]:
    """Peak resident bytes by recipe, above what the interpreter and its imports take; each in a process of
    its own.
    """
    arguments = ["--steps", str(steps), "--batch", str(batch), "--accumulation", str(accumulation)]
    return {name: int(_fresh_process(["--peak", name, *arguments])) for name in RECIPES}


def table(result: dict[str, Any]) -> str:
    """The result as a markdown table."""
    flops, memory = result["flops"], result["memory"]
    rows = [_row(f"{label}, TFLOP", flops, key, 1e12, 2) for key, label in _FLOPS.items()]
    rows.append(_row("a run of 400 x 32 samples, PFLOP", flops, "run", 1e15, 1))
    rows += [_row(label, memory, key, scale, digits) for key, (label, scale, digits) in _MEMORY.items()]
    rows += _measured_rows(result)
    head = ["| | official recipe | piu-lora | official : piu-lora |", "|---|--:|--:|--:|"]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows)])


def main() -> None:
    """Count, measure, print the table."""
    arguments = _arguments()
    batch, accumulation = arguments.batch, arguments.accumulation
    if arguments.peak:
        print(_own_peak(arguments.peak, arguments.steps, batch, accumulation))
        return
    peaks = measure_peaks(2, batch, accumulation)  # first: a child's peak starts at the size of its parent
    seconds = measure_seconds(arguments.steps, arguments.warmup, batch, accumulation)
    settings = {name: getattr(arguments, name) for name in ("steps", "warmup", "batch", "accumulation")}
    settings |= {"threads": torch.get_num_threads(), "torch": torch.__version__}
    result = {
        "flops": count_flops(),
        "memory": count_memory(),
        "seconds": seconds,
        "peak": peaks,
        "settings": settings,
    }
    publish(table(result), result, arguments.out, arguments.markdown)


# --- operations and memory, counted on the shape of Stable Diffusion 1.5


def _memory(parameters: int, weights: int, teacher: int, file: int) -> dict[str, float]:
    parts = {"weights": weights, "teacher": teacher, "gradients": 4 * parameters, "optimizer": 8 * parameters}
    return {"parameters": parameters, **parts, "total": sum(parts.values()), "file": file}


def _adapter_bytes(unet: UNet2DConditionModel) -> int:
    """Size of the adapter's weights file in fp16, without its receipt digest."""
    shapes = {
        name.replace(".adapter.", "."): value.shape
        for name, value in unet.named_parameters()
        if ".lora_" in name
    }
    return len(
        safetensors.torch.save(
            {f"unet.{name}": torch.zeros(shape, dtype=torch.float16) for name, shape in shapes.items()}
        )
    )


# --- seconds and peaks, measured on the shape of the embedded base


def _people() -> Problem:
    rows = torch.nn.functional.normalize(
        torch.randn(106, _WIDTH, generator=torch.Generator().manual_seed(0)), dim=1
    )
    return Problem.of_one(rows[:5], rows[5], rows[6:])


def _encode(embeddings: torch.Tensor) -> torch.Tensor:
    """Random conditions: the encoder costs both recipes the same, and is left out."""
    return torch.randn(len(embeddings), *_CONDITION)


def _mini_unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    unet = build_unet()
    torch.nn.init.normal_(
        unet.conv_out.weight, std=0.02
    )  # untrained it is zero, and so would be every gradient
    return unet.eval()


def _train_ours(
    steps: int, batch: int, accumulation: int, on_step: Callable[[int, dict[str, float]], None]
) -> None:
    unet, schedule = _mini_unet(), DDPMScheduler(**SCHEDULER)
    sizes = {"steps": steps, "batch": batch, "accumulation": accumulation, "checkpoint_every": steps + 1}
    config = PAPER.updated({"train": sizes})
    attach(unet, config.lora, "adapter", seed=0)
    student = TrainedModel(
        unet,
        _encode,
        lambda: adapters_disabled(unet),
        schedule.add_noise,
        schedule.config.num_train_timesteps,
    )
    train(
        PiuObjective(_people(), student, config),
        trainable(unet),
        config.train,
        config.seed,
        hooks=TrainHooks(on_step),
    )


def _official_step(batch: int, accumulation: int) -> Callable[[], float]:
    unet, schedule, problem = _mini_unet(), DDPMScheduler(**SCHEDULER), _people()
    teacher, generator, anchor = (
        piu_dense.frozen_copy(unet),
        torch.Generator().manual_seed(PAPER.seed),
        _encode(problem.anchors),
    )
    optimizer = torch.optim.AdamW(
        piu_dense.open_attention(unet), lr=PAPER.train.lr, weight_decay=PAPER.train.weight_decay
    )
    weights = {
        "eta": PAPER.section_of(ObjectiveConfig).eta,
        "retain_weight": PAPER.section_of(ObjectiveConfig).retain_weight,
    }

    def draw() -> piu_dense.Batch:
        return piu_dense.draw_batch(
            unet, _encode, schedule, problem.targets[0].forget, problem.retain, batch, generator
        )

    return lambda: piu_dense.dense_step(
        unet, teacher, optimizer, draw, anchor, accumulation=accumulation, **weights
    )


def _own_peak(recipe: str, steps: int, batch: int, accumulation: int) -> int:
    before = _highest()
    if recipe == "ours":
        _train_ours(steps, batch, accumulation, lambda step, terms: None)
    else:
        step = _official_step(batch, accumulation)
        for _ in range(steps):
            step()
    return _highest() - before


def _highest() -> int:
    """Largest resident size so far, in bytes; the system counts in KiB, macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _fresh_process(arguments: list[str]) -> str:
    root = Path(__file__).resolve().parents[1]
    command = [sys.executable, "-m", "benchmarks.step_cost", *arguments]
    return subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE, text=True).stdout


# --- the table

_FLOPS = {
    "teacher": "SD-1.5 shape, a sample: passes without gradient",
    "student": "a sample: student's passes, forward and backward",
    "sample": "a sample, all",
}
_MEMORY = {
    "parameters": ("trainable parameters, M", 1e6, 2),
    "file": ("stored file (UNet fp32; adapter fp16, rank 16), MB", 1e6, 1),
    "weights": ("memory in fp32: weights, MB", 1e6, 0),
    "teacher": ("memory in fp32: copied teacher, MB", 1e6, 0),
    "gradients": ("memory in fp32: gradients, MB", 1e6, 1),
    "optimizer": ("memory in fp32: AdamW's moments, MB", 1e6, 1),
    "total": ("memory in fp32: together, MB", 1e6, 0),
}


def _row(label: str, values: dict[str, dict[str, float]], key: str, scale: float, digits: int) -> list[str]:
    official, ours = (values[name][key] for name in RECIPES)
    return [
        label,
        f"{official / scale:,.{digits}f}",
        f"{ours / scale:,.{digits}f}",
        f"{official / ours:,.2f}" if ours else "-",
    ]


def _measured_rows(result: dict[str, Any]) -> list[list[str]]:
    official, ours = (result["seconds"][name] for name in RECIPES)
    ratios = sorted(a / b for a, b in zip(official, ours, strict=True))
    span = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    size = f"{result['settings']['batch']} x {result['settings']['accumulation']}"
    return [
        [
            f"embedded base, a step of {size}, s (median)",
            f"{statistics.median(official):.3f}",
            f"{statistics.median(ours):.3f}",
            span,
        ],
        _row(
            "embedded base, peak memory, MB",
            {name: {"peak": value} for name, value in result["peak"].items()},
            "peak",
            1e6,
            0,
        ),
    ]


@dataclass(frozen=True)
class _Arguments:
    steps: int
    warmup: int
    batch: int
    accumulation: int
    out: Path | None
    markdown: Path | None
    peak: str | None


def _arguments() -> _Arguments:
    parser = argparse.ArgumentParser(
        description="One optimiser step of piu_lora's PIU beside one of the official recipe."
    )
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each recipe")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--batch", type=int, default=PAPER.train.batch)
    parser.add_argument("--accumulation", type=int, default=PAPER.train.accumulation)
    parser.add_argument("--out", type=Path, help="JSON file for the raw figures")
    parser.add_argument("--markdown", type=Path, help="file for the table")
    parser.add_argument("--peak", choices=RECIPES, help=argparse.SUPPRESS)
    return _Arguments(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
