"""How many people one adapter can forget: methods against 1, 5, 20, 50 and 100 people at once.

    python -m benchmarks.capacity --out benchmarks/results/capacity.json

The people are drawn as ``piu-lora compare`` draws them: nobody who was used to choose defaults. The run resumes. Every forgotten
person and every anchor is generated at least once; intervals are percentile bootstraps over images.
"""

import argparse
import json
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from piu_lora import ForgetConfig, load_base
from piu_lora.adapter import OutputFolder, mounted
from piu_lora.evidence import evaluate_images, summary
from piu_lora.identity import far_threshold
from piu_lora.jobs.arena import Contender
from piu_lora.jobs.case import Case, open_case
from piu_lora.jobs.compare import drawn_people, shared_settings
from piu_lora.jobs.scoring import anchor_portraits, galleries_for, plan_for
from piu_lora.jobs.solution import make_change
from piu_lora.model import generate, mini
from piu_lora.progress import silent
from piu_lora.unlearn import Alone, find_method

METHODS = ("closed-kv", "closed-encoder", "distil-encoder", "distil-both", "piu")
COUNTS = (1, 5, 20, 50, 100)
EVALUATION = {"forget_images": 40, "retain_images": 40, "nearest": 20, "anchor_images": 20, "steps": 10, "batch": 64}


def measured(pipe: Any, case: Case, methods: list[str]) -> dict[str, Any]:
    """Every method on the people of one case."""
    galleries = galleries_for("mini", case, anchor_portraits(pipe, case))
    thresholds = [far_threshold(bank, 1e-3).value for bank in (case.bank, mini.evaluating_bank())]
    plan, sampling = plan_for(case, galleries[0].centroids), case.config.evaluation
    how = {"steps": sampling.steps, "guidance": sampling.guidance, "batch": sampling.batch}
    before = generate(pipe, plan.embeddings, plan.seeds, **how)
    places = plan.rows_of("forget")
    rows = [plan.shots[place].row for place in places]
    results = {}
    for method in methods:
        own = replace(case, config=Contender(method).config(case.config, "mini"))
        begun = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            solution, _ = make_change(pipe, find_method(method), own, OutputFolder(Path(folder) / "out"), None, Alone(), silent)
        seconds = time.perf_counter() - begun
        stored = {module: factors.to(torch.float16).to(torch.float32) for module, factors in solution.change.items()}
        with mounted(pipe, stored):
            after = generate(pipe, plan.embeddings, plan.seeds, **how)
        figures = summary(evaluate_images(plan, before, after, galleries))["recognizers"]
        for gallery, threshold in zip(galleries, thresholds, strict=True):
            cosines = (gallery.embed(after[places]) * gallery.centroids[rows]).sum(dim=1)
            figures[gallery.name]["verified"] = float((cosines >= threshold).float().mean())
        results[method] = {
            "seconds": seconds, "rank": max(factors.rank for factors in stored.values()),
            "bytes": 2 * sum(factors.down.numel() + factors.up.numel() for factors in stored.values()), "figures": figures,
        }  # fmt: skip
    return results


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: a line for each method and number of people, by the evaluating recognizer."""
    lines = [
        "| people | method | forget ISM after/before | recognised | verified | random | nearest | anchors | seconds | rank | MB |",
        "|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for count in sorted(results, key=int):
        for method, run in sorted(results[count].items(), key=lambda item: METHODS.index(item[0])):
            scores = run["figures"]["evaluating"]
            isms = [scores["ism"][group] for group in ("forget", "random", "nearest", "anchor")]
            ratios = [_text(ism["ratio"], ism["ratio_interval"]) for ism in isms]
            hit = scores["recognised"]["forget"]["after"]
            cells = [count, method, ratios[0], _text(hit["mean"], hit["interval"]), f"{scores['verified']:.3f}", *ratios[1:]]
            lines.append(f"| {' | '.join(cells)} | {run['seconds']:.0f} | {run['rank']} | {run['bytes'] / 1e6:.2f} |")
    return "\n".join(lines)


def _text(value: float, interval: list[float]) -> str:
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", nargs="+", type=int, default=COUNTS)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    results = json.loads(options.out.read_text())["results"] if options.out.exists() else {}
    bank, pipe = mini.conditioning_bank(), load_base("mini", device="cpu")
    config: ForgetConfig = shared_settings("mini").updated({"evaluation": EVALUATION})
    for count in options.counts:
        done = results.setdefault(str(count), {})
        missing = [method for method in options.methods if method not in done]
        if missing:
            case = open_case(drawn_people(bank, "mini", count), bank, config, mini.conditioning_recognizer())
            done |= measured(pipe, case, missing)
            document = {"threads": torch.get_num_threads(), "evaluation": asdict(config.evaluation), "results": results}
            options.out.write_text(json.dumps(document, indent=1) + "\n")
    note = "One adapter for several people, synthetic anchors, by the evaluating recognizer; 95 % intervals over images."
    options.out.with_suffix(".md").write_text(f"{note}\n\n{table(results)}\n")
    print(table(results))


if __name__ == "__main__":
    main()
