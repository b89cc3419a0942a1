"""The closed forms on people unseen in tuning, with synthetic anchors: forgetting, 1:1 verification, and what it costs everybody else.

    python -m benchmarks.closed_forms --people 20 --seeds 2 --processes 2 --out benchmarks/results/closed_forms.json

The people are those of ``benchmarks.forgetting`` and further ones at the same stride. A cell is a person and a seed; the run
resumes. Intervals are percentile bootstraps over people, who keep their seeds together.
"""

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.forgetting import FIRST, STRIDE, TUNED_ON
from piu_lora import ForgetConfig, load_base
from piu_lora.adapter import mounted
from piu_lora.evidence import evaluate_images
from piu_lora.identity.verification import far_threshold
from piu_lora.jobs.case import open_case
from piu_lora.jobs.retained import retained_moments
from piu_lora.jobs.scoring import anchor_portraits, galleries_for, plan_for
from piu_lora.model import generate, mini
from piu_lora.progress import silent
from piu_lora.unlearn import Ground, find_method

METHODS = ("closed-encoder", "closed-both")
GROUPS = ("forget", "random", "nearest", "anchor")
EVALUATION = {"forget_images": 12, "retain_images": 12, "nearest": 10, "anchor_images": 4, "steps": 10, "batch": 64}
TUNING = {*TUNED_ON, 150, 410}


def one_cell(row: int, seed: int, methods: tuple[str, ...]) -> dict[str, Any]:
    """Every method on one person with one seed."""
    torch.set_num_threads(1)
    bank, pipe = mini.conditioning_bank(), load_base("mini", device="cpu")
    config = ForgetConfig.preset("mini").updated({"seed": seed, "anchor": {"rule": "synthetic"}, "evaluation": EVALUATION})
    case = open_case(bank.ids[row], bank, config, mini.conditioning_recognizer())
    galleries = galleries_for("mini", case, anchor_portraits(pipe, case))
    thresholds = {
        "conditioning": far_threshold(bank, 1e-3).value,
        "evaluating": far_threshold(mini.evaluating_bank(), 1e-3).value,
    }
    plan, sampling = plan_for(case, galleries[0].centroids), config.evaluation
    how = {"steps": sampling.steps, "guidance": sampling.guidance, "batch": sampling.batch}
    before = generate(pipe, plan.embeddings, plan.seeds, **how)
    forget = plan.rows_of("forget")
    results = {}
    for name in methods:
        solve = find_method(name).solve
        assert solve is not None
        begun = time.perf_counter()
        solution = solve(case.problem, Ground(pipe, lambda modules, case=case: retained_moments(pipe, case, modules, silent)), config)
        seconds = time.perf_counter() - begun
        stored = {module: factors.to(torch.float16).to(torch.float32) for module, factors in solution.change.items()}
        with mounted(pipe, stored):
            after = generate(pipe, plan.embeddings, plan.seeds, **how)
        figures = evaluate_images(plan, before, after, galleries).figures
        judged = {}
        for gallery in galleries:
            cosines = gallery.embed(after[forget]) @ gallery.centroids[case.forget_rows[0]]
            scores = figures[gallery.name]
            judged[gallery.name] = {group: scores["ism"][group]["ratio"] for group in GROUPS} | {
                "recognised": scores["recognised"]["forget"]["after"]["mean"],
                "verified": float((cosines >= thresholds[gallery.name]).float().mean()),
            }
        size = sum(factors.down.numel() + factors.up.numel() for factors in stored.values()) * 2
        results[name] = {"seconds": seconds, "bytes": size, "facts": solution.facts, "figures": judged}
    return {"row": row, "seed": seed, "methods": results}


def summarised(cells: list[dict[str, Any]], method: str, judge: str, figure: str) -> str:
    """Median (shares: mean) with its 95 % interval over resampled people."""
    people = sorted({cell["row"] for cell in cells})
    values = [[c["methods"][method]["figures"][judge][figure] for c in cells if c["row"] == row] for row in people]
    middle = np.mean if figure in ("recognised", "verified") else np.median
    draws = np.random.default_rng(0).integers(len(people), size=(2000, len(people)))
    resampled = [middle(np.concatenate([values[i] for i in draw])) for draw in draws]
    low, high = np.percentile(resampled, [2.5, 97.5])
    return f"{middle(np.concatenate(values)):.3f} [{low:.3f}, {high:.3f}]"


def table(cells: list[dict[str, Any]]) -> str:
    """Markdown: a line for each method and recognizer."""
    lines = [
        "| method | recognizer | forget ISM after/before | recognised | verified, FAR 1e-3 | random | nearest 10 | anchor | seconds | kB |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for method in cells[0]["methods"]:
        runs = [cell["methods"][method] for cell in cells]
        cost = f"{np.median([run['seconds'] for run in runs]):.1f} | {np.median([run['bytes'] for run in runs]) / 1e3:.0f}"
        for judge in runs[0]["figures"]:
            shown = [summarised(cells, method, judge, each) for each in ("forget", "recognised", "verified", "random", "nearest", "anchor")]
            lines.append(f"| {method} | {judge} | {' | '.join(shown)} | {cost} |")
    return "\n".join(lines)


def main() -> None:
    """Run the cells that are missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    cells = json.loads(options.out.read_text())["cells"] if options.out.exists() else []
    rows = [(FIRST + STRIDE * index) % 1024 for index in range(options.people)]
    assert len(set(rows)) == len(rows)
    assert not TUNING & set(rows)
    wanted = [(row, 42 + seed) for seed in range(options.seeds) for row in rows]
    missing = [cell for cell in wanted if cell not in {(done["row"], done["seed"]) for done in cells}]
    with ProcessPoolExecutor(options.processes) as pool:
        for future in as_completed([pool.submit(one_cell, row, seed, tuple(options.methods)) for row, seed in missing]):
            cells = sorted([*cells, future.result()], key=lambda done: (int(done["seed"]), int(done["row"])))
            options.out.write_text(json.dumps({"evaluation": EVALUATION, "cells": cells}, indent=1) + "\n")
            people = len({cell["row"] for cell in cells})
            note = f"{len(cells)} cells, {people} people; medians (shares: means) with 95 % intervals over people; synthetic anchors."
            options.out.with_suffix(".md").write_text(f"{note}\n\n{table(cells)}\n")
    print(table(cells))


if __name__ == "__main__":
    main()
