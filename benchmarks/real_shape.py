"""Training on the shape of Stable Diffusion 1.5: memory by precision and batch, seconds and peak of a step,
ours and the official recipe.

Run from the repository's root:

    # counts, on the meta device, in seconds
    python -m benchmarks.real_shape [--out FILE.json] [--markdown FILE.md]
    # runs steps with random weights
    python -m benchmarks.real_shape --measure [--device cuda] [--batch 4] [--steps 5]

Counts: weights, copied teacher, gradients, AdamW's moments, and what autograd keeps for the backward pass of
one sample (a forgotten and a retained condition), with attention kept as fused kernels keep it. What a kernel
needs while it runs is not in them, so a card wants some more.
"""

import argparse
import itertools
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0

from benchmarks.kept_tensors import fused, kept_tensors
from benchmarks.output import publish
from benchmarks.sd15 import build_sd15
from piu_lora.config import ForgetConfig
from piu_lora.model import adapters_disabled, attach, checkpointed, trainable
from piu_lora.model.split_unet import SplitUNet
from piu_lora.unlearn import Problem, TrainedModel, TrainHooks, train
from piu_lora.unlearn.baselines.piu_dense import Batch, dense_step, draw_batch, frozen_copy, open_attention
from piu_lora.unlearn.piu import ObjectiveConfig, PiuObjective

__all__ = ["count", "kept_bytes", "main", "measure", "measured_table", "table"]

PAPER = ForgetConfig()
HALF = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Recipe, precision, gradient checkpointing.
VARIANTS = (
    ("official", "fp32", False),
    ("ours", "fp32", False),
    ("ours", "fp32", True),
    ("ours", "bf16", False),
    ("ours", "bf16", True),
)
BATCHES = (1, 4, 16)
TEXT_ENCODER = (
    123_060_480  # parameters of CLIP ViT-L/14's text model; it stays on the device, the VAE does not
)
_SCHEDULE: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def kept_bytes(recipe: str, precision: str, checkpointing: bool) -> int:
    """Bytes that autograd keeps for one sample of a step."""
    unet = build_sd15().to(HALF[precision])
    unet.set_attn_processor(AttnProcessor2_0())
    latents, times = (
        torch.empty(2, 4, 64, 64, device="meta", dtype=HALF[precision]),
        torch.empty(2, dtype=torch.long, device="meta"),
    )
    condition = torch.empty(2, 77, 768, device="meta", dtype=HALF[precision])
    sizes: dict[Any, int] = {}
    if recipe == "official":
        open_attention(unet)
    else:
        attach(unet, PAPER.lora, "adapter", seed=0)
    split = SplitUNet.before(unet, PAPER.lora.blocks)
    with (
        mock.patch("torch.nn.functional.scaled_dot_product_attention", fused),
        checkpointed(unet, checkpointing),
        kept_tensors(unet, sizes),
    ):
        if recipe == "official":
            unet(latents, times, condition).sample.float().square().mean()
        else:
            with torch.no_grad():
                midway = split.head(latents, times, condition)
            split.tail(midway).float().square().mean()
    return sum(sizes.values())


def count() -> list[dict[str, Any]]:
    """Bytes of each variant: what does not depend on the batch, and a sample's activations."""
    rows = []
    weights = sum(parameter.numel() for parameter in build_sd15().parameters())
    for recipe, precision, checkpointing in VARIANTS:
        width = 4 if precision == "fp32" else 2
        unet = build_sd15()
        if recipe == "official":
            learning = sum(parameter.numel() for parameter in open_attention(unet))
            fixed = {"weights": width * weights, "teacher": 4 * weights, "text_encoder": 4 * TEXT_ENCODER}
        else:
            attach(unet, PAPER.lora, "adapter", seed=0)
            learning = sum(parameter.numel() for parameter in trainable(unet))
            fixed = {
                "weights": width * weights + 4 * learning,
                "teacher": 0,
                "text_encoder": width * TEXT_ENCODER,
            }
        fixed |= {"gradients": 4 * learning, "moments": 8 * learning}
        sample = kept_bytes(recipe, precision, checkpointing)
        totals = {str(batch): sum(fixed.values()) + batch * sample for batch in BATCHES}
        rows.append(
            {
                "recipe": recipe,
                "precision": precision,
                "checkpointing": checkpointing,
                "fixed": fixed,
                "sample": sample,
                "totals": totals,
            }
        )
    return rows


# --- measured


def measure(
    recipe: str, precision: str, checkpointing: bool, device: str, batch: int, steps: int
) -> dict[str, Any]:
    """Median seconds of a step of ``batch`` samples and the peak of memory, in a process of its own."""
    arguments = [recipe, precision, str(int(checkpointing)), device, str(batch), str(steps)]
    command = [sys.executable, "-m", "benchmarks.real_shape", "--one", *arguments]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return {
            "recipe": recipe,
            "precision": precision,
            "checkpointing": checkpointing,
            "batch": batch,
            "failed": True,
        }
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _one(
    recipe: str, precision: str, checkpointing: bool, device: str, batch: int, steps: int
) -> dict[str, Any]:
    torch.manual_seed(0)
    with torch.device(device):
        unet = UNet2DConditionModel.from_config(build_sd15().config).eval()
    unet.to(HALF[precision])
    run = _official(unet, batch) if recipe == "official" else _ours(unet, batch, precision)
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    with checkpointed(unet, checkpointing):
        seconds = run(steps + 1)[1:]
    peak = (
        torch.cuda.max_memory_allocated()
        if device.startswith("cuda")
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    return {
        "recipe": recipe,
        "precision": precision,
        "checkpointing": checkpointing,
        "batch": batch,
        "seconds": statistics.median(seconds),
        "all_seconds": seconds,
        "peak": peak,
    }


def _people() -> Problem:
    rows = torch.nn.functional.normalize(
        torch.randn(106, 512, generator=torch.Generator().manual_seed(0)), dim=1
    )
    return Problem.of_one(rows[:5], rows[5], rows[6:])


def _encoder(unet: UNet2DConditionModel) -> Callable[[torch.Tensor], torch.Tensor]:
    """Random conditions: the text encoder costs both recipes the same, and is left out."""
    return lambda embeddings: torch.randn(len(embeddings), 77, 768, device=unet.device, dtype=unet.dtype)


def _clock(unet: UNet2DConditionModel) -> float:
    if unet.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _ours(unet: UNet2DConditionModel, batch: int, precision: str) -> Callable[[int], list[float]]:
    schedule = DDPMScheduler(**_SCHEDULE)
    attach(unet, PAPER.lora, "adapter", seed=0)
    student = TrainedModel(
        unet,
        _encoder(unet),
        lambda: adapters_disabled(unet),
        schedule.add_noise,
        schedule.config.num_train_timesteps,
    )

    def run(steps: int) -> list[float]:
        sizes = {
            "steps": steps,
            "batch": batch,
            "accumulation": 1,
            "checkpoint_every": steps + 1,
            "precision": precision,
        }
        config = PAPER.updated({"train": sizes})
        times = [_clock(unet)]
        objective = PiuObjective(_people(), student, config)
        hooks = TrainHooks(lambda *_: times.append(_clock(unet)))
        train(objective, trainable(unet), config.train, 0, hooks=hooks)
        return [after - before for before, after in itertools.pairwise(times)]

    return run


def _official(unet: UNet2DConditionModel, batch: int) -> Callable[[int], list[float]]:
    schedule, problem, encode = DDPMScheduler(**_SCHEDULE), _people(), _encoder(unet)
    teacher, generator = frozen_copy(unet), torch.Generator().manual_seed(0)
    anchor = encode(problem.anchors)
    optimizer = torch.optim.AdamW(
        open_attention(unet), lr=PAPER.train.lr, weight_decay=PAPER.train.weight_decay
    )

    def draw() -> Batch:
        return draw_batch(unet, encode, schedule, problem.targets[0].forget, problem.retain, batch, generator)

    def run(steps: int) -> list[float]:
        times = [_clock(unet)]
        for _ in range(steps):
            dense_step(
                unet,
                teacher,
                optimizer,
                draw,
                anchor,
                accumulation=1,
                eta=PAPER.section_of(ObjectiveConfig).eta,
                retain_weight=PAPER.section_of(ObjectiveConfig).retain_weight,
            )
            times.append(_clock(unet))
        return [after - before for before, after in itertools.pairwise(times)]

    return run


# --- tables


def _label(row: dict[str, Any]) -> str:
    return f"| {row['recipe']} | {row['precision']} | {'yes' if row['checkpointing'] else 'no'}"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Counted gigabytes, one variant a line."""
    head = (
        "| recipe | precision | checkpointing | fixed, GB | a sample, GB | "
        + " | ".join(f"batch {batch}, GB" for batch in BATCHES)
        + " |"
    )
    lines = [head, "|---|---|---|" + "--:|" * (2 + len(BATCHES))]
    for row in rows:
        cells = [sum(row["fixed"].values()), row["sample"], *(row["totals"][str(batch)] for batch in BATCHES)]
        figures = " | ".join(f"{value / 1e9:.2f}" for value in cells)
        lines.append(f"{_label(row)} | {figures} |")
    return "\n".join(lines)


def measured_table(rows: Sequence[dict[str, Any]], device: str) -> str:
    """Seconds and peaks of the steps that were run."""
    lines = [
        f"Measured on {device}:",
        "",
        "| recipe | precision | checkpointing | batch | s a step | peak, GB |",
        "|---|---|---|--:|--:|--:|",
    ]
    for row in rows:
        figures = (
            "out of memory |  |" if row.get("failed") else f"{row['seconds']:.2f} | {row['peak'] / 1e9:.2f} |"
        )
        lines.append(f"{_label(row)} | {row['batch']} | {figures}")
    return "\n".join(lines)


def _device_name(device: str) -> str:
    return (
        torch.cuda.get_device_name()
        if device.startswith("cuda")
        else f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    )


def main() -> None:
    """Print the tables; write them where asked."""
    parser = argparse.ArgumentParser(
        description="Memory and time of training on the shape of Stable Diffusion 1.5."
    )
    parser.add_argument("--measure", action="store_true", help="run steps with random weights as well")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3, help="timed steps, after one to warm up")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    parser.add_argument("--markdown", type=Path, help="file for the tables")
    parser.add_argument("--one", nargs=6, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        recipe, precision, checkpointing, device, batch, steps = arguments.one
        print(json.dumps(_one(recipe, precision, checkpointing == "1", device, int(batch), int(steps))))
        return
    result: dict[str, Any] = {"counted": count()}
    text = table(result["counted"])
    if arguments.measure:
        result["device"] = _device_name(arguments.device)
        result["measured"] = [
            measure(*variant, arguments.device, arguments.batch, arguments.steps) for variant in VARIANTS
        ]
        text += "\n\n" + measured_table(result["measured"], result["device"])
    publish(text, result, arguments.out, arguments.markdown)


if __name__ == "__main__":
    main()
