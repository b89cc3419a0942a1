"""Attacking an adapter: the split and the seed of its receipt, every attack with its controls; a report,
judged by a policy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diffusers import StableDiffusionPipeline

from piu_lora.adapter import Adapter, open_adapter, require_base
from piu_lora.attacks import AuditConfig, find_attacks, run_attacks
from piu_lora.evidence import Policy
from piu_lora.evidence.report import Pictures
from piu_lora.evidence.report.sections import Audit
from piu_lora.identity import IdentityBank
from piu_lora.jobs.auditing.apart import AttackJob, processes_for, run_apart
from piu_lora.jobs.auditing.context import open_attack_context
from piu_lora.jobs.evaluation.evaluate import receipt_settings
from piu_lora.jobs.evaluation.report import (
    Reported,
    earlier_pictures,
    earlier_report,
    finished,
    new_document,
    warn_of_others,
    write_report,
)
from piu_lora.jobs.request.request import Identities, open_request
from piu_lora.jobs.request.session import Base, open_session
from piu_lora.model import Precision, family_of
from piu_lora.progress import Progress, silent
from piu_lora.settings import parted

__all__ = ["Audited", "audit"]


@dataclass(frozen=True)
class Audited(Reported):
    """A finished audit."""

    @property
    def section(self) -> Audit:
        """The report's section "audit" (docs/reference/report.md)."""
        assert self.report.audit is not None
        return self.report.audit


def audit(
    adapter: str | Path | Adapter,
    identity: Identities,
    base: Base,
    out: str | Path | None = None,
    *,
    bank: IdentityBank | str | Path | None = None,
    pack: str | Path | None = None,
    attacks: Sequence[str] | None = None,
    budget: str = "default",
    settings: Sequence[str] = (),
    policy: Policy = Policy(),  # noqa: B008
    public: bool = False,
    device: str = "auto",
    dtype: Precision = "fp32",
    force: bool = False,
    processes: int = 1,
    progress: Progress = silent,
) -> Audited:
    """Try to bring the forgotten person back.

    Args:
        adapter: the adapter folder, or a Hub id.
        identity: the forgotten person or people, as it was given to ``forget``.
        base: as for ``forget``; a pipeline is given back as it was.
        out: a folder to create for report.json, report.md and report.html; one with an evaluation of the same
            adapter keeps it.
        bank, pack: as for ``forget``.
        attacks: names, all by default.
        budget: ``default``, or ``quick`` for a trial.
        settings: ``audit.key=value`` pairs laid over the budget, and others laid over the receipt's settings.
        policy: what the report must show to pass.
        public: leave out whatever is about the forgotten person, and all images.
        device, dtype: of a base given by name.
        force: replace an earlier audit.
        processes: that run attacks at once, where base and bank are given by name; 0 is as many as pay.
        progress: told how far the job is.

    Raises:
        BadInput: unreadable adapter, unknown identity or attack, nobody who can verify.
        Incompatible: the adapter belongs to another base.
    """
    chosen, opened = find_attacks(attacks), open_adapter(adapter)
    folder = None if out is None else Path(out)
    earlier = None if folder is None else earlier_report(folder, "audit", opened, force=force)
    audit_pairs, others = parted(settings, "audit")
    audit_config = AuditConfig.preset(budget, family_of(base)).updated_from_pairs(audit_pairs)
    config = receipt_settings(opened, others)
    session = open_session(
        base, bank, pack, faces=config.faces, device=device, dtype=dtype, progress=progress
    )
    request = open_request(identity, session.bank, config, session.reader)
    warn_of_others(opened, request)
    for bound in policy.audit:
        find_attacks([bound.key.partition(".")[0]])  # refuses attacks that do not exist
    require_base(session.pipe, opened)
    processes = processes or processes_for(base, device, audit_config, chosen)
    if isinstance(base, StableDiffusionPipeline) or isinstance(bank, IdentityBank) or processes == 1:
        context = open_attack_context(session, request, opened.change, audit_config)
        section = run_attacks(context, audit_config, chosen, progress)
    else:
        job = AttackJob(opened, identity, base, bank, pack, device, dtype, config, audit_config)
        section = run_apart(job, chosen, processes, progress)
    written = finished(
        {**new_document(opened, session, request), "audit": section}, earlier, policy, public=public
    )
    files: list[Path] = []
    if folder is not None:
        files = write_report(folder, written, earlier_pictures(folder) if earlier else Pictures())
    return Audited(written, tuple(files))
