"""``piu-lora audit``."""

from pathlib import Path
from typing import Annotated, Any

import typer

import piu_lora
from piu_lora.cli.groups import Opening, Reporting, grouped
from piu_lora.cli.options import AdapterArgument, Dtype, Force, Identities, Json, Settings
from piu_lora.cli.output import bars, print_result
from piu_lora.cli.tables import audit_parts
from piu_lora.cli.terminal import judged
from piu_lora.plugins import announced_names

__all__ = ["command"]

_NAMES = announced_names(Path(piu_lora.__file__).parent / "attacks", "attack")
_ATTACKS = f"Attacks to try, with commas between: {', '.join(_NAMES)}. By default all."


@grouped
def command(
    *,
    adapter: AdapterArgument,
    identity: Identities = [],
    opening: Opening,
    reporting: Reporting,
    attacks: Annotated[str | None, typer.Option(help=_ATTACKS)] = None,
    budget: Annotated[
        str,
        typer.Option(
            help="How much to try: default, or quick for a trial. Single settings by --set audit.key=value."
        ),
    ] = "default",
    settings: Settings = [],
    dtype: Dtype = "fp32",
    force: Force = False,
    processes: Annotated[
        int,
        typer.Option(
            help="Number of processes that run attacks at once. By default as many as pay: several on the "
            "embedded base where cores are idle.",
            min=0,
        ),
    ] = 0,
    as_json: Json = False,
) -> None:
    """Attack an adapter: can the forgotten person be brought back, and at what price?

    An artefact that `compare --keep` has kept is attacked for the person of its cell, without --identity.

    The exit code is 1 when the report misses a policy that was asked for.
    """
    from piu_lora.errors import BadInput
    from piu_lora.evidence import Policy
    from piu_lora.jobs.arena.audit import audit_artefact, is_artefact, write_attack_table
    from piu_lora.jobs.auditing.audit import audit

    policy = Policy.load(reporting.policy) if reporting.policy else Policy()
    if reporting.policy is not None and not policy.audit:
        raise BadInput(
            f"the policy {str(reporting.policy)!r} has no limits on an audit; "
            'add [audit] and lines such as "cone.radius" = {min = 0.3}'
        )
    names = None if attacks is None else [name.strip() for name in attacks.split(",")]
    how: dict[str, Any] = {"attacks": names, "budget": budget, "settings": settings, "progress": bars}
    if is_artefact(adapter):
        kept = audit_artefact(adapter, reporting.out, **how, **opening.keywords)
        table = write_attack_table(Path(adapter).resolve().parent.parent)
        files = [*kept.files, *([table] if table else [])]
        print_result(
            kept.document, [*audit_parts(kept.section), *(f"wrote {path}" for path in files)], as_json
        )
        return
    if not identity:
        raise BadInput("an audit needs to know whom the adapter forgets; pass --identity")
    reporting.check()
    audited = audit(
        adapter,
        identity,
        out=reporting.out,
        policy=policy,
        public=reporting.public,
        dtype=dtype,
        force=force,
        processes=processes,
        **how,
        **opening.keywords,
    )
    print_result(
        audited.document,
        [*audit_parts(audited.section), *(f"wrote {path}" for path in audited.files)],
        as_json,
    )
    judged(audited.report, reporting.junit, binding=reporting.policy is not None)
