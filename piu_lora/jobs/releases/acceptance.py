"""Whether a version may stand: everybody in it is still forgotten, nobody else is harmed, and it is no worse
than the version before.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch

from piu_lora.adapter import Adapter
from piu_lora.evidence import Policy
from piu_lora.evidence.report import Report, VerdictLine
from piu_lora.groups import GROUP_WORDS, RETAINED
from piu_lora.jobs.releases.manifest import CheckRecord
from piu_lora.model.factors import Factors
from piu_lora.unlearn.gate.neurons import gate_layers

__all__ = ["DEFAULT_POLICY", "checks_of", "intact_check"]

# What is asked of a version where no policy is given: the default limits on forgetting and on harm. Whether
# the base draws a person well enough to be judged is no fault of the version's.
DEFAULT_POLICY = Policy().tightened(seen_before="off", strangers="off", doubles="off")
_EXACT = 1e-5  # relative; float32 sums


def checks_of(report: Report, earlier: Report | None, worse: float) -> list[CheckRecord]:
    """The verdict of a version's evaluation, and the comparison with the version before.

    Args:
        earlier: of the version before.
        worse: by how much the likeness of others, after / before, may fall from one version to the next.
    """
    lines = report.verdict.lines if report.verdict else ()
    checks = [_limit_check(line, earlier) for line in lines]
    return [*checks, *_regressions(report, earlier, worse)]


def _limit_check(line: VerdictLine, earlier: Report | None) -> CheckRecord:
    before = None
    for other in earlier.verdict.lines if earlier and earlier.verdict else ():
        if (other.name, other.recognizer) == (line.name, line.recognizer):
            before = other.value
    text = f"{line.text} ({line.recognizer})" if line.recognizer else line.text
    return CheckRecord(
        name=line.name,
        text=text,
        value=line.value,
        limit=line.limit,
        relation=line.relation,
        passed=line.passed,
        before=before,
    )


def _regressions(report: Report, earlier: Report | None, worse: float) -> Iterator[CheckRecord]:
    ratios, ratios_before = _ratios(report), _ratios(earlier) if earlier else {}
    for (recognizer, group), value in ratios.items():
        before = ratios_before.get((recognizer, group))
        if before is None:
            continue
        value, limit = round(value, 4), round(before - worse, 4)
        words = f"likeness (ISM) of {GROUP_WORDS[group].people}, beside the version before ({recognizer})"
        yield CheckRecord(
            name="regression",
            text=words,
            value=value,
            limit=limit,
            relation=">=",
            passed=value >= limit,
            before=round(before, 4),
        )


def _ratios(report: Report) -> dict[tuple[str, str], float]:
    if report.evaluation is None:
        return {}
    return {
        (name, group): ism.ratio
        for name, recognizer in report.evaluation.recognizers.items()
        for group, ism in recognizer.ism.items()
        if group in RETAINED and ism is not None and ism.ratio is not None
    }


def intact_check(version: Adapter, members: Sequence[Adapter]) -> CheckRecord:
    """Whether every member's gate neurons read and write in the version just what they do in the member: the
    largest difference, relative to the member's own.

    It needs nobody's embedding: two members that took one neuron, or a version that lost digits, show here.
    """
    worst = max((_difference(version.change, member) for member in members), default=0.0)
    return CheckRecord(
        name="intact",
        text="largest relative difference of a member's gate neurons from the member's own",
        value=float(f"{worst:.2e}"),
        limit=_EXACT,
        relation="<=",
        passed=worst <= _EXACT,
    )


def _difference(merged: Mapping[str, Factors], member: Adapter) -> float:
    worst = 0.0
    for layer, neurons in gate_layers(member.receipt.solution.get("gates", ())).items():
        for module, factors in member.change.items():
            if f".layers.{layer}.mlp." not in module:
                continue
            member_part, merged_part = (
                _of_neurons(module, part, neurons) for part in (factors, merged[module])
            )
            worst = max(worst, float((member_part - merged_part).norm() / member_part.norm()))
    return worst


def _of_neurons(module: str, factors: Factors, neurons: Sequence[int]) -> torch.Tensor:
    """Rows of fc1, or columns of fc2, of the change."""
    up, down = factors.up.double(), factors.down.double()
    return up[list(neurons)] @ down if module.endswith("fc1") else up @ down[:, list(neurons)]
