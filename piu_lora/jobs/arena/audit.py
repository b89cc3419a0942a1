"""Attacking a kept artefact of an arena, an adapter or a baseline's dense weights; and all audits of an arena
in one table.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from piu_lora.adapter import Change, disk_errors, write_file
from piu_lora.attacks import AuditConfig, find_attacks, run_attacks
from piu_lora.attacks.dense import dense_change
from piu_lora.errors import BadInput
from piu_lora.evidence import Policy
from piu_lora.evidence.report import Pictures
from piu_lora.evidence.report.document import AdapterFacts
from piu_lora.jobs.arena.arena import drawn_people, read_arena, shared_settings
from piu_lora.jobs.arena.artefact import FORMAT, Artefact, open_artefact
from piu_lora.jobs.arena.contender import Contender
from piu_lora.jobs.auditing.audit import Audited
from piu_lora.jobs.auditing.context import open_attack_context
from piu_lora.jobs.evaluation.report import document_of, finished, write_report
from piu_lora.jobs.request.request import open_request
from piu_lora.jobs.request.session import Session, open_session
from piu_lora.markdown import as_name
from piu_lora.model import family_of
from piu_lora.progress import Progress, silent
from piu_lora.settings import parted
from piu_lora.writing import check_target

__all__ = ["USUAL", "attack_table", "audit_artefact", "is_artefact", "write_attack_table"]

# What needs the files of an adapter is left out: hosts load adapters, not dense weights.
USUAL = ("bypass", "cone", "template", "relearn", "reidentify", "inversion")


def audit_artefact(
    path: str | Path,
    out: str | Path | None = None,
    *,
    base: str = "mini",
    bank: str | None = None,
    pack: str | Path | None = None,
    attacks: Sequence[str] | None = None,
    budget: str = "default",
    settings: Sequence[str] = (),
    device: str = "auto",
    progress: Progress = silent,
) -> Audited:
    """Attack what ``compare --keep`` has kept, for the person of its cell.

    Args:
        path: ``ARENA/artefacts/NAME.safetensors``.
        out: a folder to create for the report; ``ARENA/audits/NAME`` by default.
        base, bank, pack: those of the arena.
        attacks: names; all but those that need an adapter's files by default.
        budget, settings, device, progress: as for ``audit``.

    Raises:
        BadInput: no artefact, no arena around it, an unknown attack, or a report that is there already.
    """
    path = Path(path)
    chosen, artefact = find_attacks(list(attacks or USUAL)), open_artefact(path)
    arena = path.resolve().parent.parent
    _, shared = read_arena(arena)
    folder = arena / "audits" / path.stem if out is None else Path(out)
    check_target(folder)
    if (folder / "report.json").exists():
        raise BadInput(f"{str(folder)!r} holds a report already; name another `out`, or remove it")
    family = family_of(base)
    pairs, others = parted(settings, "audit")
    audit_config = AuditConfig.preset(budget, family).updated_from_pairs(pairs)
    method, *varied = artefact.variant.split()
    config = shared_settings(family).updated(shared).updated({"seed": artefact.seed})
    config = Contender(method, tuple(varied)).request_settings(config, family).updated_from_pairs(others)
    session = open_session(base, bank, pack, faces=config.faces, device=device, progress=progress)
    person = drawn_people(session.bank, family, artefact.person + 1)[artefact.person]
    request = open_request(person, session.bank, config, session.reader)
    context = open_attack_context(session, request, _change_of(session, artefact), audit_config)
    section = run_attacks(context, audit_config, chosen, progress)
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    facts = AdapterFacts(
        id=digest[:16], method=artefact.variant, weights_sha256=digest, bytes=len(content), people=1
    )
    document = {**document_of(facts, session, request), "audit": section}
    report = finished(document, None, Policy(), public=False)
    return Audited(report, tuple(write_report(folder, report, Pictures())))


def _change_of(session: Session, artefact: Artefact) -> Change:
    if artefact.change is not None:
        return artefact.change
    return dense_change(session.pipe, artefact.component, artefact.difference or {}, session.family)


def attack_table(reports: Sequence[dict[str, Any]]) -> str:
    """Markdown: methods against attacks; in each place how many of the people were brought back, of how many.

    Args:
        reports: ``report.json`` of audits of artefacts, as plain values.
    """
    outcomes: dict[str, dict[str, list[bool]]] = {}
    for report in reports:
        for attack in (report.get("audit") or {}).get("attacks", ()):
            row = outcomes.setdefault(report["adapter"]["method"], {})
            row.setdefault(attack["name"], []).append(bool(attack["succeeded"]))
    attacks = list(dict.fromkeys(name for row in outcomes.values() for name in row))
    lines = [f"| method | {' | '.join(attacks)} |", "|---" + "|--:" * len(attacks) + "|"]
    for method, row in outcomes.items():
        cells = [f"{sum(row[name])} of {len(row[name])}" if name in row else "-" for name in attacks]
        lines.append(f"| {as_name(method)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_attack_table(arena: Path) -> Path | None:
    """Put all audits in an arena's folder into ``attacks.md``.

    Returns:
        The file; None where there is no audit.
    """
    paths = sorted((arena / "audits").glob("*/report.json"))
    if not paths:
        return None
    reports = [json.loads(path.read_text()) for path in paths]
    with disk_errors(f"the table of attacks to {str(arena)!r}"):
        text = f"Attacks that brought the person back, of artefacts attacked:\n\n{attack_table(reports)}\n"
        write_file(arena / "attacks.md", text.encode())
    return arena / "attacks.md"


def is_artefact(path: str | Path) -> bool:
    """Whether a path is a kept artefact: by its name and its header."""
    file = Path(path)
    if file.suffix != ".safetensors" or not file.is_file():
        return False
    with file.open("rb") as stream:
        return FORMAT.encode() in stream.read(4096)
