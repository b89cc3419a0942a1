"""Stacks of separately trained adapters: summed, merged by refit, merged and fused into the base.

    python -m benchmarks.stacks --work DIR --json benchmarks/results/stacks.json --markdown
    benchmarks/results/stacks.md

Ten people of the bank, none of them used to choose a default, get an adapter each (kept in ``--work``;
adapters that are there are used). Every person is in exactly one stack of each size: ten of 1, five of 2, two
of 5, one of 10. Same conditions and seeds for all, both recognizers. ISM is given as a share of the untouched
base's.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from benchmarks.forgetting import FIRST, STRIDE
from benchmarks.output import parser as new_parser
from benchmarks.output import publish
from piu_lora import ForgetConfig, find_family, forget, generate, load_adapters, load_base
from piu_lora.adapter import open_adapter, unload
from piu_lora.evidence.metrics import accuracy, cosine_to, interval
from piu_lora.groups import FORGET, NEAREST, RANDOM
from piu_lora.jobs.stacks.check import check_stack
from piu_lora.jobs.stacks.fuse import fuse_adapters
from piu_lora.jobs.stacks.members import StackMember
from piu_lora.jobs.stacks.merge import MergeSettings, merge_adapters
from piu_lora.model import mini

SIZES = (1, 2, 5, 10)
GROUPS = (FORGET, NEAREST, RANDOM)
STEPS, GUIDANCE = 15, 3.0


def shots_of(rows: Sequence[int]) -> list[tuple[str, int, torch.Tensor]]:
    """Ten images of every forgotten person, two of each of their five nearest people, 40 random people."""
    bank = mini.conditioning_bank()
    shots = []
    for row in rows:
        own = bank.of(bank.ids[row])
        shots += [(FORGET, row, own[i % len(own)]) for i in range(10)]
        near = [
            other
            for other in (bank.centroids @ bank.centroids[row]).argsort(descending=True).tolist()
            if other not in rows
        ][:5]
        shots += [(NEAREST, other, bank.of(bank.ids[other])[i]) for other in near for i in range(2)]
    chosen = [row for row in range(5, len(bank), 25) if row not in rows][:40]
    return shots + [(RANDOM, row, bank.of(bank.ids[row])[0]) for row in chosen]


def score(pipe: StableDiffusionPipeline, shots: list[tuple[str, int, torch.Tensor]]) -> dict[str, Any]:
    """Cosines to the own centroid and hits among the bank, by recognizer."""
    pictures = generate(
        pipe,
        torch.stack([shot[2] for shot in shots]),
        list(range(len(shots))),
        steps=STEPS,
        guidance=GUIDANCE,
    )
    rows = [shot[1] for shot in shots]
    found = {}
    for name, recognizer, bank in (
        ("conditioning", mini.conditioning_recognizer(), mini.conditioning_bank()),
        ("evaluating", mini.evaluating_recognizer(), mini.evaluating_bank()),
    ):
        embedded = recognizer.embed(pictures).numpy()
        centroids = bank.centroids.numpy()
        cosines = cosine_to(embedded, centroids[rows]).round(4)
        found[name] = {
            "cosine": cosines.tolist(),
            "hit": accuracy(embedded, centroids, rows).astype(int).tolist(),
        }
    return found


@contextmanager
def loaded(pipe: StableDiffusionPipeline, folders: Sequence[Path]) -> Iterator[StableDiffusionPipeline]:
    """The pipeline with these adapters."""
    names = load_adapters(pipe, folders)
    try:
        yield pipe
    finally:
        unload(pipe, names)


def one_stack(
    base: StableDiffusionPipeline, members: Sequence[StackMember], rows: Sequence[int], work: Path
) -> dict[str, Any]:
    """All ways to put one stack together, with the interference that ``stack check`` predicts for each."""
    shots = shots_of(rows)
    result: dict[str, Any] = {
        "rows": list(rows),
        "groups": [shot[0] for shot in shots],
        "base": score(base, shots),
        "ways": {},
    }

    def note(way: str, pipe: StableDiffusionPipeline, p95: float, **facts: Any) -> None:
        result["ways"][way] = {"scores": score(pipe, shots), "check_p95": p95, **facts}

    def check(stack: Sequence[StackMember]) -> float:
        found = check_stack(stack, base, activations=0)
        return float(found.interference.harm(-1, found.bystanders)["p95"])

    with loaded(base, [member.adapter.path for member in members]) as pipe:
        note("summed", pipe, check(members))
    for way, settings in (
        ("refit", MergeSettings(method="refit", dtype="fp16")),
        ("refit, tolerance 0.01", MergeSettings(method="refit", tolerance=0.01, dtype="fp16")),
    ):
        begun = time.perf_counter()
        merged = merge_adapters(members, work / "merged", settings, base=base, force=True)
        seconds = time.perf_counter() - begun
        size = (merged.path / "pytorch_lora_weights.safetensors").stat().st_size
        ranks = statistics.fmean(error.rank for error in merged.errors.values())
        with loaded(base, [merged.path]) as pipe:
            note(
                way,
                pipe,
                check([StackMember(open_adapter(merged.path))]),
                seconds=seconds,
                bytes=size,
                rank=ranks,
            )
    fuse_adapters([StackMember(open_adapter(merged.path))], "mini", work / "fused", force=True)
    note("refit, fused", load_base(work / "fused"), result["ways"][way]["check_p95"])
    return result


def seconds_per_image(
    base: StableDiffusionPipeline, folders: Sequence[Path], work: Path, rounds: int = 5
) -> dict[str, Any]:
    """16 images at once: the base, the stack, the merged and the fused one in turn, ``rounds`` times."""
    embeddings = torch.stack([mini.conditioning_bank().centroids[row] for row in range(16)])
    fused, times = load_base(work / "fused"), {name: [] for name in ("base", "stacked", "merged", "fused")}

    def timed(name: str, pipe: StableDiffusionPipeline) -> None:
        begun = time.perf_counter()
        generate(pipe, embeddings, list(range(16)), steps=STEPS, guidance=GUIDANCE)
        times[name].append((time.perf_counter() - begun) / 16)

    for _ in range(rounds):
        timed("base", base)
        with loaded(base, folders) as pipe:
            timed("stacked", pipe)
        with loaded(base, [work / "merged"]) as pipe:
            timed("merged", pipe)
        timed("fused", fused)
    return {
        name: {"median": statistics.median(values), "ratio": _ratio(values, times["base"])}
        for name, values in times.items()
    }


def _ratio(values: list[float], base: list[float]) -> list[float]:
    ratios = sorted(a / b for a, b in zip(values, base, strict=True))
    return [statistics.median(ratios), ratios[0], ratios[-1]]


def cell(stacks: list[dict[str, Any]], way: str, recognizer: str, group: str) -> str:
    """After / before of the mean cosine over all stacks, with the bootstrap interval over images."""
    after, before = [], []
    for stack in stacks:
        places = [i for i, each in enumerate(stack["groups"]) if each == group]
        after += [stack["ways"][way]["scores"][recognizer]["cosine"][i] for i in places]
        before += [stack["base"][recognizer]["cosine"][i] for i in places]
    scale = float(np.mean(before))
    low, high = interval(np.array(after) / scale)
    return f"{np.mean(after) / scale:.3f} [{low:.3f}, {high:.3f}]"


def recognised(stacks: list[dict[str, Any]], way: str, recognizer: str) -> float:
    """Share of the forgotten people's images that are still recognised."""
    hits = [
        hit
        for stack in stacks
        for hit, group in zip(stack["ways"][way]["scores"][recognizer]["hit"], stack["groups"], strict=True)
        if group == FORGET
    ]
    return float(np.mean(hits))


def table(result: dict[str, Any]) -> str:
    """Quality by size and way, then the times."""
    lines = [
        "| adapters | way | recognizer | forget ISM | recognised | retain, random | retain, nearest 5 "
        "| check p95 | s an image / base |"
    ]
    lines.append("|--:|---|---|--:|--:|--:|--:|--:|--:|")
    for size, stacks in result["sizes"].items():
        for way in stacks[0]["ways"]:
            p95 = statistics.median(stack["ways"][way]["check_p95"] for stack in stacks)
            speed = result["seconds"][size]
            ratio = speed["fused" if "fused" in way else "stacked" if way == "summed" else "merged"]["ratio"]
            for recognizer in ("conditioning", "evaluating"):
                figures = [cell(stacks, way, recognizer, group) for group in (FORGET, RANDOM, NEAREST)]
                figures.insert(1, f"{recognised(stacks, way, recognizer):.3f}")
                pace = f"{ratio[0]:.2f} ({ratio[1]:.2f} to {ratio[2]:.2f})"
                lines.append(
                    f"| {size} | {way} | {recognizer} | {' | '.join(figures)} | {p95:.2f} | {pace} |"
                )
    return "\n".join(lines)


def short_table(result: dict[str, Any]) -> str:
    """Sums beside refits, both recognizers in one cell, without intervals."""
    lines = [
        "| adapters | put together by | forget ISM | recognised | retain random | retain nearest 5 "
        "| seconds |",
        "|--:|---|--:|--:|--:|--:|--:|",
    ]
    for size, stacks in result["sizes"].items():
        for way, label in (
            ("summed", "itself" if size == "1" else "sum"),
            ("refit, tolerance 0.01", "refit"),
        ):
            pace = result["seconds"][size]["stacked" if way == "summed" else "merged"]["ratio"][0]
            cells = [_both(stacks, way, group) for group in (FORGET, RANDOM, NEAREST)]
            hits = [f"{recognised(stacks, way, name):.3f}" for name in ("conditioning", "evaluating")]
            cells.insert(1, " / ".join(hits))
            lines.append(f"| {size} | {label} | {' | '.join(cells)} | x {pace:.2f} |")
    return "\n".join(lines)


def _both(stacks: list[dict[str, Any]], way: str, group: str) -> str:
    names = ("conditioning", "evaluating")
    return " / ".join(cell(stacks, way, name, group).split()[0] for name in names)


def make_adapters(work: Path, count: int) -> list[tuple[int, StackMember]]:
    """One adapter for each person, trained with the defaults where it is missing."""
    bank, made = mini.conditioning_bank(), []
    config = ForgetConfig.preset(find_family("mini"), "piu")
    for row in [FIRST + STRIDE * i for i in range(count)]:
        folder = work / str(row)
        if not folder.exists():
            forget(bank.ids[row], "mini", folder, config=config, evaluate=False)
        made.append((row, StackMember(open_adapter(folder), 1.0, bank.of(bank.ids[row]))))
    return made


def main() -> None:
    """Make the adapters that are missing, put them together, score, print the table."""
    parser = new_parser(__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for the adapters")
    parser.add_argument("--people", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    made, base = make_adapters(options.work, options.people), load_base("mini")
    result: dict[str, Any] = {"threads": options.threads, "sizes": {}, "seconds": {}}
    for size in [size for size in SIZES if size <= options.people]:
        with tempfile.TemporaryDirectory() as scratch:
            parts = [made[start : start + size] for start in range(0, options.people, size)]
            stacks = [
                one_stack(base, [m for _, m in part], [row for row, _ in part], Path(scratch))
                for part in parts
            ]
            result["sizes"][str(size)] = stacks
            result["seconds"][str(size)] = seconds_per_image(
                base, [m.adapter.path for _, m in parts[-1]], Path(scratch)
            )
        print(f"size {size} done", flush=True)
    publish(table(result), result, options.json, options.markdown)


if __name__ == "__main__":
    main()
