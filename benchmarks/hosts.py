"""Hosts: who comes out when a forgotten person is drawn the way demos, nodes and services draw.

    python -m benchmarks.hosts --out benchmarks/results/hosts.json

For every method and person, the attacks ``hosts`` and ``template`` of ``piu-lora audit``: the embedded base
as each host sets it up, before and after, beside a control person who is not forgotten. Images are verified
by the recognizer that the base never met, against photographs that nothing was trained on, at a false-accept
rate of 1e-3. Cells are written as they come, and those of a run before are kept.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.output import parser as new_parser
from benchmarks.output import write_table
from piu_lora import ForgetConfig, forget, load_base
from piu_lora.evidence.statistics import share_interval
from piu_lora.jobs.arena.contender import UNTOUCHED
from piu_lora.jobs.auditing.audit import audit
from piu_lora.model import family_of

METHODS = (
    "closed-kv",
    "closed-encoder",
    "closed-both",
    "gate-encoder",
    "gate-both",
    "distil-encoder",
    "distil-both",
)
PEOPLE = (7, 501)  # rows of the bank that no default was tuned on
TEMPLATES = "templates"
NOTE = "Share of images verified as the forgotten person (of the control person, who is not forgotten)."


def measure(methods: Sequence[str], people: Sequence[int], images: int, out: Path) -> dict[str, Any]:
    """Fill the cells: ``verified, images`` of the forgotten person and of the control, by method, host and
    person.
    """
    result: dict[str, Any] = {"images": images, "people": len(people), "cells": {}, "prompts": {}}
    if out.exists():
        result = json.loads(out.read_text())
    pipe = load_base("mini")
    for row in people:
        for method in methods:
            if str(row) in result["cells"].get(method, {}).get("bare", {}):
                continue
            before = str(row) not in result["cells"].get(UNTOUCHED, {}).get("bare", {})
            with TemporaryDirectory() as folder:
                adapter = Path(folder) / "adapter"
                config = ForgetConfig.preset(family_of("mini")).updated_from_pairs((f"method={method}",))
                forget(f"mini-{row:04d}", pipe, adapter, config=config, evaluate=False)
                shown = str(before).lower()
                audited = audit(
                    adapter,
                    f"mini-{row:04d}",
                    pipe,
                    attacks=["hosts", "template"],
                    settings=(
                        f"audit.images={images}",
                        f"audit.hosts.before={shown}",
                        f"audit.template.before={shown}",
                    ),
                )
            for entry in audited.section.to_dict()["attacks"]:
                _take_in(result, entry, method, str(row))
            out.write_text(json.dumps(result, indent=1) + "\n")
    return result


def _take_in(result: dict[str, Any], entry: dict[str, Any], method: str, person: str) -> None:
    """The rows of the recognizer that decides; prompts are kept one by one beside their sum."""
    for case, who, model, recognizer, images, _, share, *_ in entry["rows"]:
        if recognizer != entry["rows"][-1][3] or "anchor" in model:
            continue
        column = UNTOUCHED if model == "untouched base" else method
        part = "control" if who == "control" else "forgotten"
        verified = round(share * images)
        places = [(result["cells"], case)]
        if entry["name"] == "template":
            places = [(result["prompts"], case), (result["cells"], TEMPLATES)]
        for tree, host in places:
            cell = tree.setdefault(column, {}).setdefault(host, {}).setdefault(person, {})
            before = cell.get(part, [0, 0])
            cell[part] = [before[0] + verified, before[1] + images]


def table(result: dict[str, Any]) -> str:
    """Hosts down, methods across."""
    cells = result["cells"]
    methods = [UNTOUCHED, *(method for method in METHODS if method in cells)]
    hosts = list(dict.fromkeys(host for method in methods[1:] for host in cells[method]))
    lines = ["| host | " + " | ".join(methods) + " |", "|---|" + "--:|" * len(methods)]
    for host in hosts:
        name = "20 templates, all" if host == TEMPLATES else host
        lines.append(f"| {name} | " + " | ".join(_cell(cells[method].get(host)) for method in methods) + " |")
    worst = [_worst_prompt(result["prompts"].get(method, {})) for method in methods]
    lines.append("| 20 templates, the worst | " + " | ".join(worst) + " |")
    counted = [_everywhere(cells[method]) for method in methods]
    lines.append("| all hosts but a stock adapter, interval over images | " + " | ".join(counted) + " |")
    return "\n".join(lines)


def _sum(cell: dict[str, Any], part: str) -> tuple[int, int]:
    pairs = [shares[part] for shares in cell.values() if part in shares]
    return sum(verified for verified, _ in pairs), sum(images for _, images in pairs)


def _cell(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return "-"
    verified, images = _sum(cell, "forgotten")
    control, of = _sum(cell, "control")
    return f"{verified / images:.2f}" + (f" ({control / of:.2f})" if of else "")


def _worst_prompt(prompts: dict[str, Any]) -> str:
    shares = []
    for cell in prompts.values():
        verified, images = _sum(cell, "forgotten")
        shares.append(verified / images)
    return f"{max(shares):.2f}" if shares else "-"


def _everywhere(cells: dict[str, Any]) -> str:
    """Inpainting is left out as well: the surroundings of a photograph bring a part of the person."""
    verified = images = 0
    for host, cell in cells.items():
        if host not in (TEMPLATES, "second LoRA, stock adapter", "inpainting"):
            more, of = _sum(cell, "forgotten")
            verified, images = verified + more, images + of
    low, high = share_interval(verified, images)
    return f"{verified / images:.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    """Measure and print."""
    parser = new_parser(__doc__)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--people", type=int, default=len(PEOPLE))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/hosts.json"))
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    people = PEOPLE[: arguments.people]
    result = measure(arguments.methods.split(","), people, arguments.images, arguments.out)
    write_table(arguments.out, NOTE, table(result))


if __name__ == "__main__":
    main()
