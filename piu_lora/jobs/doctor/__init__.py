"""What this machine can do, and what to do about the rest. Nothing here uses the network or loads a model."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from piu_lora.errors import BadInput
from piu_lora.jobs.doctor import models
from piu_lora.jobs.doctor.commands import command_findings
from piu_lora.jobs.doctor.device import host_findings, import_torch, torch_findings
from piu_lora.jobs.doctor.disk import cache_findings, out_findings
from piu_lora.jobs.doctor.finding import Finding, Report, guarded
from piu_lora.jobs.doctor.hub import cache_folder
from piu_lora.jobs.doctor.packages import package_findings
from piu_lora.jobs.doctor.runtime import runtime_findings

__all__ = ["Finding", "Report", "examine"]

_BASES = ("mini", "arc2face")


def examine(base: str | None = None, *, pack: Path | None = None, out: Path = Path()) -> Report:
    """Look at everything the commands depend on.

    Args:
        base: ``mini`` or ``arc2face``; both by default. The embedded one is always looked at.
        pack: folder of the face detector and recognizer; ``PIU_LORA_PACK`` or the usual place by default.
        out: where adapters and reports are to go.

    Raises:
        BadInput: another base; everything else that goes wrong is a finding.
    """
    if base is not None and base not in _BASES:
        raise BadInput(
            f"--base {base!r} is none that the doctor knows; pass mini or arc2face, or leave it out for both"
        )
    findings = guarded("Python", "packages", package_findings)
    findings += guarded("Device", "devices", _devices)
    findings += guarded("Device", "host", host_findings)
    findings += guarded("onnxruntime", "state", lambda: runtime_findings(_has_gpu()))
    findings += guarded("Models", "mini", models.mini_findings)
    shelves: list[models.Shelf] = []
    findings += guarded("Models", "arc2face", lambda: _arc2face(base, shelves))
    findings += guarded("Face pack", "folder", lambda: models.pack_findings(models.pack_folder(pack)))
    findings += models.token_findings()
    to_download = sum(shelf.to_download for shelf in shelves)
    findings += guarded("Disk", "Hub cache", lambda: cache_findings(cache_folder(), to_download))
    findings += guarded("Disk", "out", lambda: out_findings(out))
    findings += guarded("Commands", "commands", lambda: command_findings(findings, base))
    return Report(tuple(findings))


def _devices() -> Iterator[Finding]:
    torch, failure = import_torch()
    yield from [failure] if failure else torch_findings(torch, shutil.which("nvidia-smi"))


def _has_gpu() -> bool:
    """An NVIDIA GPU, even one that this torch cannot use."""
    return shutil.which("nvidia-smi") is not None


def _arc2face(base: str | None, shelves: list[models.Shelf]) -> Iterator[Finding]:
    """The files of Arc2Face; ``shelves`` keeps them for the sum of what is to download."""
    if base == "mini":
        return
    for shelf in models.arc2face_shelves():
        shelves.append(shelf)
        yield from models.shelf_findings(shelf)
