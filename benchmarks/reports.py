"""The full report - evaluation and audit at their default sizes - for three adapters that forget the same
person.

    python -m benchmarks.reports --out benchmarks/results/reports

The person is the first whom ``piu-lora compare`` draws: nobody who was used to choose defaults. Everything
runs in one process, on as many threads as torch takes; the seconds mean something on a quiet machine only. A
report that is there is not made again.
"""

import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from benchmarks.output import parser as new_parser
from piu_lora import ForgetConfig, forget, load_base
from piu_lora.evidence import Policy, verdict_of
from piu_lora.evidence.report import Report, read_report, to_json
from piu_lora.evidence.report.measures import Ism
from piu_lora.evidence.report.sections import Attack
from piu_lora.groups import ANCHOR, FORGET, NEAREST, RANDOM
from piu_lora.jobs.arena.arena import drawn_people
from piu_lora.jobs.auditing.audit import audit
from piu_lora.jobs.evaluation.evaluate import evaluate
from piu_lora.model import find_family, mini

METHODS = ("piu", "closed-kv", "closed-encoder")
ATTACKS = ("cone", "inversion", "bypass", "relearn", "reidentify")
LABELS = {
    FORGET: "forgotten person",
    RANDOM: "random people",
    NEAREST: "nearest ten",
    ANCHOR: "anchor",
}  # as the published table says
OUTCOMES = {True: "succeeds", False: "fails", None: "not tried"}
EARLIER = {"poster": "reidentify"}  # what reports of earlier versions call an attack


def made(pipe: Any, person: str, method: str, folder: Path) -> Report:
    """Forget, evaluate and audit: the report of one method."""
    adapter = folder / "adapter"
    begun = time.perf_counter()
    forget(person, pipe, adapter, config=ForgetConfig.preset(find_family("mini"), method), evaluate=False)
    print(f"{method}: made in {time.perf_counter() - begun:.0f} s", flush=True)
    evaluate(adapter, person, pipe, folder / "report")
    return audit(adapter, person, pipe, folder / "report").report


def table(reports: dict[str, Report]) -> str:
    """Markdown: what each adapter's evaluation and attacks came to, by the evaluating recognizer."""
    lines = [f"| | {' | '.join(reports)} |", "|---" + "|--:" * len(reports) + "|"]

    def row(name: str, cells: Iterable[str]) -> None:
        lines.append(f"| {name} | {' | '.join(cells)} |")

    evaluations = [report.evaluation for report in reports.values()]
    judges = [evaluation.recognizers["evaluating"] for evaluation in evaluations]
    for group, label in LABELS.items():
        row(f"ISM after / before, {label}", (_ratio(judge.ism[group]) for judge in judges))
    verified = (judge.verified["0.001"][FORGET].after.mean for judge in judges)
    row("verified at FAR 1e-3, forgotten person", (f"{share:.3f}" for share in verified))
    leaks = (judge.leak["0.001"] for judge in judges)
    row("Leak@8, Leak@64 at FAR 1e-3", (f"{leak['8'].after:.3f}, {leak['64'].after:.3f}" for leak in leaks))
    verdicts = ("passed" if report.verdict.passed else "falls short" for report in reports.values())
    row("verdict by the default policy", verdicts)
    row("seconds of the evaluation", (f"{evaluation.seconds:.0f}" for evaluation in evaluations))
    audits = [report.audit for report in reports.values()]
    for name in ATTACKS:
        entries = [next(entry for entry in audit.attacks if _name(entry) == name) for audit in audits]
        row(f"{name} ({entries[0].budget})", (OUTCOMES[entry.succeeded] for entry in entries))
    row("seconds of the audit", (f"{audit.seconds:.0f}" for audit in audits))
    return "\n".join(lines)


def _ratio(ism: Ism) -> str:
    return f"{ism.ratio:.3f} [{', '.join(f'{end:.3f}' for end in ism.ratio_interval)}]"


def _name(attack: Attack) -> str:
    return EARLIER.get(attack.name, attack.name)


def findings(reports: dict[str, Report]) -> str:
    """What every attack says in words."""
    parts = []
    for method, report in reports.items():
        parts += [f"**{method}**", ""]
        parts += [f"- {_name(attack)}: {attack.finding}" for attack in report.audit.attacks]
        parts += [""]
    return "\n".join(parts)


def main() -> None:
    """Make what is missing, print the table."""
    parser = new_parser(__doc__)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    pipe, person = (
        load_base("mini", device="cpu"),
        drawn_people(mini.conditioning_bank(), find_family("mini"), 1)[0],
    )
    options.out.mkdir(parents=True, exist_ok=True)
    reports = {}
    for method in options.methods:
        path = options.out / f"{method}.json"
        if not path.exists():
            with tempfile.TemporaryDirectory() as folder:
                path.write_text(to_json(made(pipe, person, method, Path(folder))))
        report = read_report(path)
        # By the limits of today.
        reports[method] = report.model_copy(update={"verdict": verdict_of(report, Policy())})
        path.write_text(to_json(reports[method]))
    note = f"One person, {torch.get_num_threads()} threads; by the evaluating recognizer, 95 % intervals."
    (options.out / "reports.md").write_text(f"{note}\n\n{table(reports)}\n\n{findings(reports)}")
    print(table(reports))


if __name__ == "__main__":
    main()
