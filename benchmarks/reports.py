"""The full report - evaluation and audit at their default sizes - for three adapters that forget the same
person.

    python -m benchmarks.reports --out benchmarks/results/reports

The person is the first whom ``piu-lora compare`` draws: nobody who was used to choose defaults. Everything
runs in one process, on as many threads as torch takes; the seconds mean something on a quiet machine only. A
report that is there is not made again.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from piu_lora import ForgetConfig, forget, load_base
from piu_lora.evidence import Policy, verdict_of
from piu_lora.evidence.report import read_report, to_json
from piu_lora.jobs.arena.compare import drawn_people
from piu_lora.jobs.auditing.audit import audit
from piu_lora.jobs.evaluation.evaluate import evaluate
from piu_lora.model import find_family, mini

METHODS = ("piu", "closed-kv", "closed-encoder")
ATTACKS = ("cone", "inversion", "bypass", "relearn", "reidentify")


def made(pipe: Any, who: str, method: str, folder: Path) -> dict[str, Any]:
    """Forget, evaluate and audit: the report of one method."""
    adapter = folder / "adapter"
    begun = time.perf_counter()
    forget(who, pipe, adapter, config=ForgetConfig.preset(find_family("mini"), method), evaluate=False)
    print(f"{method}: made in {time.perf_counter() - begun:.0f} s", flush=True)
    evaluate(adapter, who, pipe, folder / "report")
    return audit(adapter, who, pipe, folder / "report").document


def table(reports: dict[str, dict[str, Any]]) -> str:
    """Markdown: what each adapter's evaluation and attacks came to, by the evaluating recognizer."""
    lines = [f"| | {' | '.join(reports)} |", "|---" + "|--:" * len(reports) + "|"]

    def row(name: str, cells: list[str]) -> None:
        lines.append(f"| {name} | {' | '.join(cells)} |")

    seen = [report["evaluation"]["recognizers"]["evaluating"] for report in reports.values()]
    for group, label in (
        ("forget", "forgotten person"),
        ("random", "random people"),
        ("nearest", "nearest ten"),
        ("anchor", "anchor"),
    ):
        cells = [
            f"{each['ism'][group]['ratio']:.3f} [{', '.join(f'{end:.3f}' for end in each['ism'][group]['ratio_interval'])}]"
            for each in seen
        ]
        row(f"ISM after / before, {label}", cells)
    row(
        "verified at FAR 1e-3, forgotten person",
        [f"{each['verified']['0.001']['forget']['after']['mean']:.3f}" for each in seen],
    )
    row(
        "Leak@8, Leak@64 at FAR 1e-3",
        [
            f"{each['leak']['0.001']['8']['after']:.3f}, {each['leak']['0.001']['64']['after']:.3f}"
            for each in seen
        ],
    )
    row(
        "verdict by the default policy",
        ["passed" if report["verdict"]["passed"] else "falls short" for report in reports.values()],
    )
    row(
        "seconds of the evaluation", [f"{report['evaluation']['seconds']:.0f}" for report in reports.values()]
    )
    for name in ATTACKS:
        entries = [
            next(each for each in report["audit"]["attacks"] if each["name"] == name)
            for report in reports.values()
        ]
        told = {True: "succeeds", False: "fails", None: "not tried"}
        row(f"{name} ({entries[0]['budget']})", [told[each["succeeded"]] for each in entries])
    row("seconds of the audit", [f"{report['audit']['seconds']:.0f}" for report in reports.values()])
    return "\n".join(lines)


def findings(reports: dict[str, dict[str, Any]]) -> str:
    """What every attack says in words."""
    parts = []
    for method, report in reports.items():
        parts += (
            [f"**{method}**", ""]
            + [f"- {each['name']}: {each['finding']}" for each in report["audit"]["attacks"]]
            + [""]
        )
    return "\n".join(parts)


def main() -> None:
    """Make what is missing, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    pipe, who = (
        load_base("mini", device="cpu"),
        drawn_people(mini.conditioning_bank(), find_family("mini"), 1)[0],
    )
    options.out.mkdir(parents=True, exist_ok=True)
    reports = {}
    for method in options.methods:
        path = options.out / f"{method}.json"
        if not path.exists():
            with tempfile.TemporaryDirectory() as folder:
                path.write_text(to_json(made(pipe, who, method, Path(folder))))
        report = read_report(path)
        reports[method] = {**report, "verdict": verdict_of(report, Policy())}  # by the limits of today
        path.write_text(to_json(reports[method]))
    note = f"One person, {torch.get_num_threads()} threads; by the evaluating recognizer, 95 % intervals."
    (options.out / "reports.md").write_text(f"{note}\n\n{table(reports)}\n\n{findings(reports)}")
    print(table(reports))


if __name__ == "__main__":
    main()
