"""Is the anchor safe: does a perfect redirect still verify as the forgotten person, or as somebody else of
the bank?

Run from the repository's root:

    python -m benchmarks.anchor_safety [--people N] [--scale N] [--out FILE.json] [--markdown FILE.md]

For people spread evenly over both embedded banks, and over a made-up one with the geometry of real faces (as
in ``benchmarks.anchor_search``), every anchor rule is run as ``forget`` runs it, on a training side of 90 %
of the others. An anchor verifies as a person where its cosine with that person's centroid reaches the
threshold of the false-accept rate. Then the seconds in a large bank of that geometry.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.anchor_search import write_bank
from benchmarks.output import publish
from piu_lora.config import AnchorConfig, SplitConfig
from piu_lora.errors import BadInput
from piu_lora.identity import IdentityBank, choose_anchor, split_identities
from piu_lora.identity.verification import Threshold, far_threshold
from piu_lora.model import mini

__all__ = ["main", "measure", "scale", "table"]

FARS = (1e-2, 1e-3, 1e-4)
_VERIFIES = ("verifies_as_forgotten", "verifies_as_somebody_else")
_MADE = 3000  # people of the made-up bank


def _made(people: int) -> IdentityBank:
    """One embedding each, with the geometry measured on real faces."""
    with tempfile.TemporaryDirectory() as folder:
        write_bank(Path(folder) / "bank.safetensors", people)
        return IdentityBank.load(Path(folder) / "bank.safetensors")  # mapped: its pages outlive the folder


BANKS: dict[str, Callable[[], IdentityBank]] = {
    "conditioning": mini.conditioning_bank,
    "evaluating": mini.evaluating_bank,
    "made up, as real faces": lambda: _made(_MADE),
}
SAFETY = {"margin": 0.05, "band": 0.05}  # as the embedded base's family pins them
RULES = {
    "proximity, tau 0.2": AnchorConfig(on_empty="widen", **SAFETY),
    "far-safe, FAR 1e-2": AnchorConfig(rule="far-safe", far=1e-2, **SAFETY),
    "far-safe, FAR 1e-3": AnchorConfig(rule="far-safe", far=1e-3, **SAFETY),
    "synthetic, FAR 1e-2": AnchorConfig(rule="synthetic", far=1e-2, **SAFETY),
    "synthetic, FAR 1e-3": AnchorConfig(rule="synthetic", far=1e-3, **SAFETY),
}


def measure(bank: IdentityBank, people: int) -> dict[str, Any]:
    """The thresholds of a bank, and what becomes of every rule's anchors for ``people`` of it."""
    thresholds = [far_threshold(bank, far) for far in FARS]
    between = (bank.centroids @ bank.centroids.T)[~torch.eye(len(bank), dtype=torch.bool)].reshape(
        len(bank), -1
    )
    step = len(bank) // people
    return {
        "identities": len(bank),
        "embeddings": len(bank.embeddings),
        "thresholds": {f"{each.far:g}": {"cosine": each.value, "pairs": each.pairs} for each in thresholds},
        "people": {"mean": _range(between.mean(dim=1)), "largest": _range(between.amax(dim=1))},
        "rules": {
            name: _rule(bank, config, range(0, people * step, step), thresholds)
            for name, config in RULES.items()
        },
    }


def _rule(
    bank: IdentityBank, config: AnchorConfig, forgotten: range, thresholds: list[Threshold]
) -> dict[str, Any]:
    seconds, cosines, rest, mean = [], [], [], []
    for seed, row in enumerate(forgotten):
        generator = torch.Generator().manual_seed(seed)
        others = [other for other in range(len(bank)) if other != row]
        split = split_identities(9, others, SplitConfig(), generator)
        begun = time.perf_counter()
        try:
            anchor = choose_anchor(bank, bank.centroid(row), split.retain_train, config, generator)
        except BadInput:
            continue
        seconds.append(time.perf_counter() - begun)
        met = bank.cosines(anchor.embedding)
        cosines.append(anchor.cosine)
        mean.append(float(met.mean()))
        # A real anchor is itself in the bank: the question is who else.
        rest.append(float(met[[other for other in others if other != anchor.row]].max()))
    return {
        "asked": len(forgotten),
        "found": len(cosines),
        "cosine": [min(cosines), statistics.median(cosines), max(cosines)],
        "mean_cosine": [min(mean), statistics.median(mean), max(mean)],
        "verifies_as_forgotten": {
            f"{each.far:g}": sum(cosine >= each.value for cosine in cosines) for each in thresholds
        },
        "verifies_as_somebody_else": {
            f"{each.far:g}": sum(cosine >= each.value for cosine in rest) for each in thresholds
        },
        "is_a_real_person": config.rule != "synthetic",
        "seconds": statistics.median(seconds),
    }


def scale(people: int) -> dict[str, Any]:
    """Seconds of the calibration and of the safe rules in a large bank, at a false-accept rate of 1e-3."""
    bank = _made(people)
    others, seconds = [row for row in range(len(bank)) if row != 0], {}
    begun = time.perf_counter()
    far_threshold(bank, 1e-3)
    seconds["far_threshold"] = time.perf_counter() - begun
    for rule in ("far-safe", "synthetic"):
        begun = time.perf_counter()
        choose_anchor(
            bank,
            bank.centroid(0),
            others,
            AnchorConfig(rule=rule, **SAFETY),
            torch.Generator().manual_seed(0),
        )
        seconds[rule] = time.perf_counter() - begun
    return {"identities": people, "seconds": seconds}


def _range(values: torch.Tensor) -> list[float]:
    return [float(values.min()), float(values.median()), float(values.max())]


def table(result: dict[str, Any]) -> str:
    """The result as markdown tables."""
    lines = ["| bank | impostor pairs | cosine at FAR 1e-2 | at 1e-3 | at 1e-4 |", "|---|--:|--:|--:|--:|"]
    for name, found in result["banks"].items():
        cells = " | ".join(f"{each['cosine']:.3f}" for each in found["thresholds"].values())
        lines.append(f"| {name} | {next(iter(found['thresholds'].values()))['pairs']:,} | {cells} |")
    lines += [
        "",
        "| bank | rule | found | cosine with the forgotten, median (range) "
        "| verifies as the forgotten at FAR 1e-2 / 1e-3 | as somebody else | mean cosine with the bank | s |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, found in result["banks"].items():
        lines += [_row(name, rule, each) for rule, each in found["rules"].items()]
        low, middle, high = found["people"]["mean"]
        lines.append(f"| {name} | *real people* | | | | | {middle:.3f} ({low:.3f} to {high:.3f}) | |")
    large = result["scale"]
    named = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in large["seconds"].items())
    return "\n".join([*lines, "", f"{large['identities']:,} people (each rule calibrates first): {named}."])


def _row(bank: str, rule: str, found: dict[str, Any]) -> str:
    (low, middle, high), count = found["cosine"], found["found"]
    forgotten, other = (
        " / ".join(f"{found[key][far] / count:.0%}" for far in ("0.01", "0.001")) for key in _VERIFIES
    )
    lowest, mean, highest = found["mean_cosine"]
    return (
        f"| {bank} | {rule} | {count} of {found['asked']} | {middle:.3f} ({low:.3f} to {high:.3f}) "
        f"| {forgotten} | {other} | {mean:.3f} ({lowest:.3f} to {highest:.3f}) | {found['seconds']:.3f} |"
    )


@dataclass(frozen=True)
class _Arguments:
    people: int
    scale: int
    threads: int
    out: Path | None
    markdown: Path | None


def main() -> None:
    """Measure both banks, print the tables."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    banks = {name: measure(load(), arguments.people) for name, load in BANKS.items()}
    settings = {
        "people": arguments.people,
        "threads": arguments.threads,
        "margin": SAFETY["margin"],
        "torch": torch.__version__,
        "load": [round(load, 1) for load in os.getloadavg()],
    }
    result = {"banks": banks, "scale": scale(arguments.scale), "settings": settings}
    publish(table(result), result, arguments.out, arguments.markdown)


def _arguments() -> _Arguments:
    parser = argparse.ArgumentParser(
        description="How often an anchor verifies as the forgotten person, or as somebody else."
    )
    parser.add_argument("--people", type=int, default=100)
    parser.add_argument("--scale", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON file for the raw figures")
    parser.add_argument("--markdown", type=Path, help="file for the tables")
    return _Arguments(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
