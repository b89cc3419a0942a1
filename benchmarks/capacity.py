"""How many people one adapter can forget: methods against 1, 5, 20, 50 and 100 people at once.

    python -m benchmarks.capacity --out benchmarks/results/capacity.json

The people are drawn as ``piu-lora compare`` draws them: nobody who was used to choose defaults. The run
resumes. Every forgotten person and every anchor is generated at least once; intervals are percentile
bootstraps over people (over images for one person).
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.output import parser as new_parser
from benchmarks.output import write_table
from piu_lora import ForgetConfig
from piu_lora.evidence import evaluate_images, summary
from piu_lora.groups import FORGET, GROUP_WORDS, GROUPS, RETAINED
from piu_lora.jobs.arena.arena import drawn_people, shared_settings
from piu_lora.jobs.arena.contender import Contender
from piu_lora.jobs.arena.round import verified_share
from piu_lora.jobs.evaluation.scoring import galleries_for, plan_for
from piu_lora.jobs.request.request import ErasureRequest, open_request
from piu_lora.jobs.request.session import Session, open_session
from piu_lora.jobs.training.trial import tried
from piu_lora.model import find_family, generate, mini
from piu_lora.unlearn import ClosedConfig

NOTE = (
    "One adapter for several people, synthetic anchors, by the evaluating recognizer; "
    "95 % intervals over people."
)
SUMMED = ", people summed"
METHODS = (
    "closed-kv",
    "closed-kv" + SUMMED,
    "closed-encoder",
    "closed-encoder" + SUMMED,
    "distil-encoder",
    "distil-both",
    "piu",
)
COUNTS = (1, 5, 20, 50, 100)
EVALUATION = {
    "forget_images": 40,
    "retain_images": 40,
    "nearest": 20,
    "anchor_images": 20,
    "steps": 10,
    "batch": 64,
}


def contender(name: str, people: int) -> Contender:
    """A closed form averages over the people whom it forgets; summed, each weighs as much as one person alone
    does.
    """
    method = name.removesuffix(SUMMED)
    weight = ForgetConfig.preset(find_family("mini"), method).section_of(ClosedConfig).retain_weight / people
    return Contender(method, (f"closed.retain_weight={weight}",) if name.endswith(SUMMED) else ())


def run(
    session: Session, request: ErasureRequest, contenders: dict[str, Contender]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every contender on the people of one case."""
    pipe, galleries = session.pipe, galleries_for(session, request)
    plan, sampling = plan_for(request, galleries[0].centroids), request.config.evaluation
    how = {"steps": sampling.steps, "guidance": sampling.guidance, "batch": sampling.batch}
    before = generate(pipe, plan.embeddings, plan.seeds, **how)
    places = plan.rows_of(FORGET)
    rows = [plan.shots[place].row for place in places]
    for name, entrant in contenders.items():
        with tried(session, replace(request, config=entrant.config(request.config, "mini"))) as trial:
            after = generate(pipe, plan.embeddings, plan.seeds, **how)
        figures = summary(evaluate_images(plan, before, after, galleries))["recognizers"]
        for gallery in galleries:
            figures[gallery.name]["verified"] = verified_share(gallery, after[places], rows)
        yield (
            name,
            {
                "seconds": trial.cost.seconds,
                "rank": trial.rank,
                "bytes": trial.stored_bytes,
                "figures": figures,
            },
        )


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: a line for each method and number of people, by the evaluating recognizer."""
    others = " | ".join(GROUP_WORDS[group].short for group in RETAINED)
    lines = [
        f"| people | method | forget ISM after/before | recognised | verified | {others} "
        "| seconds | rank | MB |",
        "|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for count in sorted(results, key=int):
        for method, entry in sorted(results[count].items(), key=lambda item: METHODS.index(item[0])):
            scores = entry["figures"]["evaluating"]
            isms = [scores["ism"][group] for group in GROUPS]
            ratios = [_text(ism["ratio"], ism["ratio_interval"]) for ism in isms]
            hit = scores["recognised"][FORGET]["after"]
            cells = [
                count,
                method,
                ratios[0],
                _text(hit["mean"], hit["interval"]),
                f"{scores['verified']:.3f}",
                *ratios[1:],
            ]
            cells += [f"{entry['seconds']:.0f}", str(entry["rank"]), f"{entry['bytes'] / 1e6:.2f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _text(value: float, interval: list[float]) -> str:
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def main() -> None:
    """Run what is missing, print the table."""
    parser = new_parser(__doc__)
    parser.add_argument("--counts", nargs="+", type=int, default=COUNTS)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    results = json.loads(options.out.read_text())["results"] if options.out.exists() else {}
    session = open_session("mini", device="cpu")
    bank = session.bank
    config: ForgetConfig = shared_settings(find_family("mini")).updated({"evaluation": EVALUATION})
    for count in options.counts:
        done = results.setdefault(str(count), {})
        missing = {
            name: contender(name, count)
            for name in options.methods
            if name not in done and not (count == 1 and SUMMED in name)
        }
        if not missing:
            continue
        request = open_request(
            drawn_people(bank, find_family("mini"), count), bank, config, mini.conditioning_recognizer()
        )
        for name, figures in run(session, request, missing):
            done[name] = figures
            document = {
                "threads": torch.get_num_threads(),
                "evaluation": config.evaluation.to_dict(),
                "results": results,
            }
            options.out.write_text(json.dumps(document, indent=1) + "\n")
    write_table(options.out, NOTE, table(results))


if __name__ == "__main__":
    main()
