"""What hiding among decoys brings, and what it costs them: reidentification from adapters with and without.

    python -m benchmarks.decoys --out benchmarks/results/decoys.json

Several people, an adapter each by closed-encoder; an attacker who has the base, the bank and the adapter
ranks everybody by how strongly the adapter answers to them. With k decoys a rank of 1 in (k + 1) would be
chance.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.output import parser as new_parser
from benchmarks.output import write_table
from piu_lora import ForgetConfig, evaluate, forget, load_base
from piu_lora.groups import DECOY, FORGET, NEAREST, RANDOM
from piu_lora.jobs.arena.arena import drawn_people
from piu_lora.jobs.auditing.audit import audit
from piu_lora.model import find_family, mini

NOTE = (
    "closed-encoder, medians over people; ranks among the 1,024 of the bank; ISM after / before by the "
    "evaluating recognizer."
)
SETTINGS = ((0, 0.5), (8, 0.8), (8, 0.5), (8, 0.0))  # how many, and what is left of their likeness
SECRET = 8_675_309_123
LEAN = (
    "report.sweep_images=0",
    "report.leak_images=0",
    "evaluation.steps=8",
    "evaluation.forget_images=8",
    "evaluation.retain_images=12",
    "evaluation.nearest=5",
    "evaluation.anchor_images=2",
    "evaluation.batch=64",
)


def measured(pipe: Any, who: str, count: int, cosine: float) -> dict[str, float | None]:
    """One adapter: the forgotten person's ranks, and what is left of whom."""
    decoys = {"count": count, "cosine": cosine, "seed": SECRET if count else 0}
    known = [f"decoys.seed={SECRET}"] if count else []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "adapter"
        forget(
            who,
            pipe,
            path,
            config=ForgetConfig.preset(find_family("mini"), "closed-encoder").updated({"decoys": decoys}),
            evaluate=False,
        )
        section = audit(path, who, pipe, attacks=["reidentify"], settings=known).section
        reidentify = section.attacks[0].figures
        isms = evaluate(path, who, pipe, settings=(*LEAN, *known)).figures["evaluating"]["ism"]
    ranks = {
        name: reidentify[name] for name in ("response_rank", "unusual_rank", "rows_rank", "columns_rank")
    }
    return {
        **ranks,
        **{group: isms[group]["ratio"] for group in (FORGET, RANDOM, NEAREST, DECOY) if group in isms},
    }


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: medians over people."""
    lines = [
        "| decoys | their cosine | people | rank by response | rank by A | first by any | forgotten | random "
        "| nearest | decoys keep |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for key, rows in results.items():
        count, cosine = key.split()
        middle = {name: float(np.median([row[name] for row in rows])) for name in rows[0]}
        first = np.mean([min(row[name] for name in row if name.endswith("_rank")) == 1 for row in rows])
        remains = f"{middle[DECOY]:.3f}" if DECOY in middle else "-"
        head = f"| {count} | {cosine if count != '0' else '-'} | {len(rows)} | {middle['response_rank']:.0f}"
        isms = " | ".join(f"{middle[group]:.3f}" for group in (FORGET, RANDOM, NEAREST))
        lines.append(f"{head} | {middle['rows_rank']:.0f} | {first:.2f} | {isms} | {remains} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, print the table."""
    parser = new_parser(__doc__)
    parser.add_argument("--people", type=int, default=6)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    results: dict[str, list[dict[str, Any]]] = (
        json.loads(options.out.read_text()) if options.out.exists() else {}
    )
    pipe = load_base("mini", device="cpu")
    for count, cosine in SETTINGS:
        rows = results.setdefault(f"{count} {cosine}", [])
        for who in drawn_people(mini.conditioning_bank(), find_family("mini"), options.people)[len(rows) :]:
            rows.append(measured(pipe, who, count, cosine))
            options.out.write_text(json.dumps(results, indent=1) + "\n")
    write_table(options.out, NOTE, table(results))


if __name__ == "__main__":
    main()
