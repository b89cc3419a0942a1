"""Attacks side by side, each in a process of its own."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from piu_lora.adapter import Adapter
from piu_lora.attacks import Attack, AuditConfig, audit_section, find_attacks, run_attack
from piu_lora.config import ForgetConfig
from piu_lora.engine import find_engine
from piu_lora.jobs.auditing.context import open_attack_context
from piu_lora.jobs.request.request import Identities, open_request
from piu_lora.jobs.request.session import Base, open_session
from piu_lora.model import Precision, family_of
from piu_lora.model.base import resolve_device
from piu_lora.progress import Progress
from piu_lora.threads import idle

__all__ = ["AttackJob", "processes_for", "run_apart"]

_MOST = 4  # processes that are started unasked
_MEMORY = 2 * 2**30  # bytes that have to be free for each of them


@dataclass(frozen=True)
class AttackJob:
    """The attacks of an audit, for an engine: every worker opens base, bank and request once.

    Attributes:
        base, bank, pack, device, dtype: as for ``audit``, by name.
        config: of the request.
    """

    adapter: Adapter
    identity: Identities
    base: str | Path
    bank: str | Path | None
    pack: str | Path | None
    device: str
    dtype: Precision
    config: ForgetConfig
    audit: AuditConfig

    def open(self) -> Callable[[str], dict[str, Any]]:
        """As ``engine.Job``; a task is an attack's name, and its result the entry in the report."""
        logging.getLogger("piu_lora").setLevel(logging.ERROR)  # the process that waits has said everything
        session = open_session(
            self.base, self.bank, self.pack, faces=self.config.faces, device=self.device, dtype=self.dtype
        )
        request = open_request(self.identity, session.bank, self.config, session.reader)
        context = open_attack_context(session, request, self.adapter.change, self.audit)
        return lambda name: run_attack(context, self.audit, find_attacks([name])[0])


def processes_for(base: Base, device: str, config: AuditConfig, attacks: Sequence[Attack]) -> int:
    """How many processes pay: for a small base on a processor, as many as cores are idle."""
    import psutil

    threads = family_of(base).threads if isinstance(base, str | Path) else 0
    if len(attacks) < 2 or config.budget == "quick" or threads != 1 or resolve_device(device).type != "cpu":
        return 1
    if not all(entry.run.__module__.startswith("piu_lora.") for entry in attacks):
        return 1  # another process may not know those from elsewhere
    fitting = int(psutil.virtual_memory().available // _MEMORY)
    return max(1, min(idle(), fitting, len(attacks), _MOST))


def run_apart(
    job: AttackJob, attacks: Sequence[Attack], processes: int, progress: Progress
) -> dict[str, Any]:
    """As ``run_attacks``, on several processes: the same figures, whatever their number."""
    ordered = sorted(attacks, key=lambda entry: not entry.long)
    entries, start = {}, time.monotonic()
    with progress("audit", len(ordered)) as advance:
        for _, entry in find_engine(workers=processes).run(job, [entry.name for entry in ordered]):
            entries[entry["name"]] = entry
            advance(1)
    return audit_section([entries[entry.name] for entry in attacks], time.monotonic() - start, job.audit)
