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
from collections.abc import Callable
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
EARLIER = {"poster": "reidentify"}  # what reports of earlier versions call an attack


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

    judged = [report["evaluation"]["recognizers"]["evaluating"] for report in reports.values()]
    for group, label in (
        ("forget", "forgotten person"),
        ("random", "random people"),
        ("nearest", "nearest ten"),
        ("anchor", "anchor"),
    ):
        row(f"ISM after / before, {label}", [_ratio(figures["ism"][group]) for figures in judged])
    verified = [figures["verified"]["0.001"]["forget"]["after"]["mean"] for figures in judged]
    row("verified at FAR 1e-3, forgotten person", [f"{share:.3f}" for share in verified])
    leaks = [figures["leak"]["0.001"] for figures in judged]
    row(
        "Leak@8, Leak@64 at FAR 1e-3",
        [f"{leak['8']['after']:.3f}, {leak['64']['after']:.3f}" for leak in leaks],
    )
    verdicts = [report["verdict"]["passed"] for report in reports.values()]
    row("verdict by the default policy", ["passed" if passed else "falls short" for passed in verdicts])
    _seconds(row, "evaluation", reports)
    outcomes = {True: "succeeds", False: "fails", None: "not tried"}
    for name in ATTACKS:
        attacks = [_attack(report, name) for report in reports.values()]
        row(f"{name} ({attacks[0]['budget']})", [outcomes[attack["succeeded"]] for attack in attacks])
    _seconds(row, "audit", reports)
    return "\n".join(lines)


def _ratio(ism: dict[str, Any]) -> str:
    low, high = ism["ratio_interval"]
    return f"{ism['ratio']:.3f} [{low:.3f}, {high:.3f}]"


def _seconds(row: Callable[[str, list[str]], None], section: str, reports: dict[str, dict[str, Any]]) -> None:
    row(f"seconds of the {section}", [f"{report[section]['seconds']:.0f}" for report in reports.values()])


def _name(attack: dict[str, Any]) -> str:
    name: str = attack["name"]
    return EARLIER.get(name, name)


def _attack(report: dict[str, Any], name: str) -> dict[str, Any]:
    attack: dict[str, Any] = next(entry for entry in report["audit"]["attacks"] if _name(entry) == name)
    return attack


def findings(reports: dict[str, dict[str, Any]]) -> str:
    """What every attack says in words."""
    parts = []
    for method, report in reports.items():
        sentences = [f"- {_name(attack)}: {attack['finding']}" for attack in report["audit"]["attacks"]]
        parts += [f"**{method}**", "", *sentences, ""]
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
