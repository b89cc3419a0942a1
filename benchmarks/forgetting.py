"""Forgetting people unseen in training: piu-lora beside the official dense recipe, same base, split,
conditions and seeds.

    python -m benchmarks.forgetting --people 10 --out benchmarks/results/forgetting.json

Each row is one person of the bank. People used to choose the defaults (``TUNED_ON``) are left out. The run
resumes: rows already in the file are kept. ``--processes`` runs several people side by side.
"""

import copy
import json
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch

from benchmarks.output import parser as new_parser
from piu_lora import ForgetConfig, forget, load_base
from piu_lora.evidence import evaluate_images
from piu_lora.groups import GROUPS
from piu_lora.jobs.evaluation.scoring import galleries_for, plan_for
from piu_lora.jobs.request.request import open_request
from piu_lora.jobs.request.session import open_session
from piu_lora.model import find_family, generate, mini
from piu_lora.unlearn.baselines.piu_dense import PiuDenseSettings, train_dense

TUNED_ON = (100, 300)
FIRST, STRIDE = 37, 89
# The official recipe with as many samples as ours and a learning rate that suits this small base; and, with
# --paper, as published.
DENSE = {
    "official dense recipe, lr 1e-3, 150 x 16": {"lr": 1e-3, "steps": 150, "batch": 16, "accumulation": 1}
}
PAPER = {"official dense recipe, as published": {"lr": 1e-4, "steps": 400, "batch": 16, "accumulation": 2}}


def one_person(row: int, threads: int, baselines: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Every method on one person; figures by method."""
    torch.set_num_threads(threads)
    bank, base = mini.conditioning_bank(), load_base("mini")
    config = ForgetConfig.preset(find_family("mini"), "piu")
    identity = bank.ids[row]
    with tempfile.TemporaryDirectory() as folder:
        result = forget(identity, base, Path(folder) / "adapter", config=config)
        assert result.evaluation is not None
        weights = result.path / "pytorch_lora_weights.safetensors"
        results = {
            "piu-lora": {
                "seconds": result.receipt.seconds["train"],
                "bytes": weights.stat().st_size,
                "figures": result.evaluation.figures,
            }
        }
    request = open_request(identity, bank, config, mini.conditioning_recognizer())
    galleries = galleries_for(open_session(base), request)
    target = request.problem.targets[0]
    plan = plan_for(request, galleries[0].centroids)
    sampling = {
        "steps": config.evaluation.steps,
        "guidance": config.evaluation.guidance,
        "batch": config.evaluation.batch,
    }
    for name, settings in baselines.items():
        pipe = copy.copy(base)
        pipe.unet = copy.deepcopy(base.unet)
        begun = time.perf_counter()
        train_dense(
            pipe,
            target.forget,
            target.anchor,
            request.problem.retain,
            PiuDenseSettings(**settings),
            seed=config.seed,
        )
        seconds = time.perf_counter() - begun
        after = generate(pipe, plan.embeddings, plan.seeds, **sampling)
        stored = sum(p.numel() for p in pipe.unet.parameters()) * 4
        results[name] = {
            "seconds": seconds,
            "bytes": stored,
            "figures": evaluate_images(plan, result.evaluation.before, after, galleries).figures,
        }
    return {"row": row, "methods": results}


def table(rows: list[dict[str, Any]]) -> str:
    """Medians over people with the range, Markdown, by the evaluating and the conditioning recognizer."""
    lines = [
        "| method | recognizer | forget ISM after/before | AccU | retain random | retain nearest 10 | anchor "
        "| seconds | stored |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for method in rows[0]["methods"]:
        for judge in ("conditioning", "evaluating"):
            runs = [row["methods"][method] for row in rows]
            ratios = {
                group: [run["figures"][judge]["ism"][group]["ratio"] for run in runs] for group in GROUPS
            }
            cells = [
                f"{statistics.median(values):.3f} ({min(values):.2f} to {max(values):.2f})"
                for values in ratios.values()
            ]
            acc_u = statistics.fmean(run["figures"][judge]["after"]["acc_u"] for run in runs)
            seconds, size = statistics.median(run["seconds"] for run in runs), runs[0]["bytes"] / 1e6
            cells.insert(1, f"{acc_u:.3f}")
            lines.append(f"| {method} | {judge} | {' | '.join(cells)} | {seconds:.0f} | {size:.2f} MB |")
    return "\n".join(lines)


def main() -> None:
    """Run the people that are missing, print the table."""
    parser = new_parser(__doc__)
    parser.add_argument("--people", type=int, default=10)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2, help="of each process")
    parser.add_argument(
        "--paper",
        action="store_true",
        help="the official recipe with the published settings too: ten times as long",
    )
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rows = json.loads(options.out.read_text())["people"] if options.out.exists() else []
    wanted = [FIRST + STRIDE * index for index in range(options.people)]
    assert not set(wanted) & set(TUNED_ON)
    missing = [row for row in wanted if row not in {done["row"] for done in rows}]
    with ProcessPoolExecutor(options.processes) as pool:
        for future in as_completed(
            [
                pool.submit(one_person, row, options.threads, DENSE | (PAPER if options.paper else {}))
                for row in missing
            ]
        ):
            rows = sorted([*rows, future.result()], key=lambda done: int(done["row"]))
            options.out.write_text(
                json.dumps(
                    {"threads": options.threads, "processes": options.processes, "people": rows}, indent=1
                )
                + "\n"
            )
    note = f"{len(rows)} people, {options.threads} threads, medians over people (range); AccU is the mean."
    text = f"{note}\n\n{table(rows)}\n"
    options.out.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
