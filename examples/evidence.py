"""Evaluate and attack an adapter, and judge it by a policy.

python examples/evidence.py OUT [section.key=value ...]
"""

import sys
from pathlib import Path

from piu_lora import ForgetConfig, Policy, audit, evaluate, find_family, forget, load_base

WHO = "mini-0007"


def main(out: Path, settings: list[str]) -> None:
    """Forget somebody in seconds, write the full report to ``OUT/report``, and print the verdict."""
    pipe, policy = load_base("mini"), Policy.load(Path(__file__).parent / "policy.toml")
    adapter = forget(
        WHO,
        pipe,
        out / "adapter",
        config=ForgetConfig.preset(find_family("mini"), "closed-encoder"),
        evaluate=False,
    ).path

    attacking = [pair for pair in settings if pair.startswith("audit.")]
    evaluate(
        adapter,
        WHO,
        pipe,
        out / "report",
        settings=[pair for pair in settings if pair not in attacking],
        policy=policy,
    )
    judged = audit(
        adapter, WHO, pipe, out / "report", attacks=["cone", "reidentify"], settings=attacking, policy=policy
    ).report

    for attack in judged.audit.attacks:
        print(f"{attack.name}: {attack.finding}")
    for line in judged.verdict.missed:
        value = line.reason if line.value is None else f"{line.value:.3f}"
        print(f"missed: {line.recognizer} {line.text}: {value}, expected {line.relation} {line.limit}")
    print(f"passed: {judged.verdict.passed}; look at {out / 'report' / 'report.html'}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "evidence"), sys.argv[2:])
