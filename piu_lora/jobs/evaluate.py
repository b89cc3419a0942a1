"""Scoring an adapter folder again: the split, the anchor and the seeds of its receipt, freshly generated pictures."""

from pathlib import Path

from diffusers import StableDiffusionPipeline

from piu_lora.adapter import Adapter, disk_errors, load_adapter, open_adapter, refuse_existing, unload, write_file
from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput
from piu_lora.evidence import Evaluation, before_after, png_bytes, report_json
from piu_lora.identity import IdentityBank
from piu_lora.jobs.case import Identities, bank_for, open_case
from piu_lora.jobs.readers import reader_for
from piu_lora.jobs.scoring import score
from piu_lora.model import Precision, as_pipeline
from piu_lora.progress import Progress, silent

__all__ = ["evaluate"]


def evaluate(
    adapter: str | Path,
    identity: Identities,
    base: str | Path | StableDiffusionPipeline,
    out: str | Path | None = None,
    *,
    bank: IdentityBank | str | Path | None = None,
    pack: str | Path | None = None,
    settings: tuple[str, ...] = (),
    device: str = "auto",
    dtype: Precision = "fp32",
    force: bool = False,
    progress: Progress = silent,
) -> Evaluation:
    """Score what an adapter does to the person it forgets, and to everybody else.

    Args:
        adapter: the adapter folder, or a Hub id.
        identity: the forgotten person or people, as it was given to ``forget``; the adapter does not know.
        base: as for ``forget``; a pipeline is given back without the adapter.
        out: a folder to create for report.json and before_after.png.
        bank, pack: as for ``forget``.
        device, dtype: of a base given by name.
        settings: ``evaluation.key=value`` pairs laid over the receipt's settings.
        force: replace files of an earlier report.
        progress: told how far the job is.

    Raises:
        BadInput: unreadable adapter, unknown identity.
        Incompatible: the adapter belongs to another base.
    """
    targets = _targets(out, force=force)
    opened = open_adapter(adapter)
    config = _settings_of(opened)
    if config.anchor.rule == "fixed" and not any(pair.startswith("anchor.identity=") for pair in settings):
        raise BadInput("the adapter's anchor was fixed by hand and is not stored; pass it as --set anchor.identity=ID")
    config = config.updated_from_pairs(settings)
    case = open_case(identity, bank_for(base, bank), config, reader_for(base, pack, config.faces, device))
    pipe = as_pipeline(base, device, dtype)
    name = load_adapter(pipe, opened)
    try:
        evaluation = score(pipe, case, progress)
    finally:
        unload(pipe, [name])
    if evaluation is None:
        raise BadInput("no face pack is at hand, so nothing can be scored; pass --pack DIR (`piu-lora bank models` makes one)")
    if targets is not None:
        with disk_errors(f"the report to {str(out)!r}"):
            targets[0].parent.mkdir(parents=True, exist_ok=True)
            write_file(targets[0], report_json(evaluation, case.public_settings).encode())
            write_file(targets[1], png_bytes(before_after(evaluation)))
    return evaluation


def _settings_of(adapter: Adapter) -> ForgetConfig:
    """The settings of the run that made the adapter; for one made of others, the defaults of its base."""
    receipt = adapter.receipt
    return ForgetConfig.preset(receipt.base.family) if receipt.members else ForgetConfig().updated(receipt.settings)


def _targets(out: str | Path | None, *, force: bool) -> tuple[Path, Path] | None:
    if out is None:
        return None
    targets = (Path(out) / "report.json", Path(out) / "before_after.png")
    for target in targets:
        refuse_existing(target, force=force)
    return targets
