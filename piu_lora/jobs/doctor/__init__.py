"""What this machine can do, and what to do about the rest. Nothing here uses the network or loads a model."""

from pathlib import Path

from piu_lora.errors import BadInput
from piu_lora.jobs.doctor import machine, models, packages
from piu_lora.jobs.doctor.finding import Finding, Report, command_findings, guarded

__all__ = ["Finding", "Report", "examine"]


def examine(base: str | None = None, *, pack: Path | None = None, out: Path = Path()) -> Report:
    """Look at everything that the commands depend on.

    Args:
        base: ``mini`` leaves Arc2Face out; both are looked at by default.
        pack: folder of the face detector and recognizer; ``PIU_LORA_PACK`` or the usual place by default.
        out: where adapters and reports are to go.

    Raises:
        BadInput: another base; everything else that goes wrong is a finding.
    """
    if base not in (None, "mini", "arc2face"):
        raise BadInput(
            f"base = {base!r} is unknown to the doctor; pass mini or arc2face, or leave it out for both"
        )
    probes = [
        ("Python", "packages", packages.package_findings),
        ("Device", "torch", machine.device_findings),
        ("Device", "host", machine.host_findings),
        ("onnxruntime", "import", packages.runtime_findings),
        ("Models", "mini", models.mini_findings),
        ("Models", "arc2face", models.arc2face_findings),
        ("Face pack", "folder", lambda: models.pack_findings(pack)),
        ("Token", "Hub token", models.token_findings),
        ("Disk", "Hub cache", lambda: models.cache_findings(with_arc2face=base != "mini")),
        ("Disk", "out", lambda: machine.room("out", out, "make room, or choose another `out`")),
    ]
    if base == "mini":
        del probes[5]
    findings = [finding for section, name, probe in probes for finding in guarded(section, name, probe)]
    findings += guarded(
        "Commands", "commands", lambda: command_findings(findings, with_arc2face=base != "mini")
    )
    return Report(tuple(findings))
