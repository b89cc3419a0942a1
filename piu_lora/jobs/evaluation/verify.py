"""Whether an adapter is what its receipt says: files, weights, base, effect, figures, in this order."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from piu_lora.adapter import (
    Adapter,
    adapter_folder,
    adapters_disabled,
    load_adapter,
    read_adapter,
    read_lora,
    require_base,
    unload,
)
from piu_lora.adapter.folder import DIFFUSERS_FILE, PEFT_FILE, RECEIPT_FILE, peft_folder
from piu_lora.adapter.older_loaders import without_zeros
from piu_lora.adapter.receipt import settings_digest
from piu_lora.errors import BadInput, PiuLoraError
from piu_lora.evidence import compare_probe, measure_probe
from piu_lora.evidence.metrics import Array
from piu_lora.identity import IdentityBank
from piu_lora.jobs.evaluation.evaluate import evaluate
from piu_lora.model import as_pipeline
from piu_lora.progress import Progress, silent

__all__ = ["Check", "Verdict", "verify_adapter"]


_LEAN = ("report.leak_images=0", "report.sweep_images=0")  # the receipt states no more than that


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; ``differs`` is empty where it is as stated, ``skipped`` says why it could
    not be looked at.
    """

    name: str
    differs: str = ""
    skipped: str = ""


@dataclass(frozen=True)
class Verdict:
    """All checks up to the first that fails, and how many people the adapter forgets; None where it cannot be
    read.
    """

    checks: tuple[Check, ...]
    people: int | None = None

    @property
    def failure(self) -> Check | None:
        """The first thing that differs."""
        return next((check for check in self.checks if check.differs), None)


def verify_adapter(
    adapter: str | Path,
    base: str | Path | StableDiffusionPipeline,
    *,
    identity: str | Path | None = None,
    bank: IdentityBank | str | Path | None = None,
    pack: str | Path | None = None,
    device: str = "auto",
    progress: Progress = silent,
) -> Verdict:
    """Check an adapter against its receipt.

    Args:
        adapter: a folder, or a Hub id.
        base: the base it claims to be for; one given by name is loaded in float32.
        identity: whom it forgets; then the figures of the evaluation are measured again as well.
        bank, pack, device: as for ``evaluate``.

    Raises:
        BadInput: there is no adapter at all.
        EnvironmentProblem: the base cannot be loaded.
    """
    folder = adapter_folder(adapter)
    if not (folder / RECEIPT_FILE).is_file():
        raise BadInput(
            f"{str(folder)!r} is not an adapter folder: it has no {RECEIPT_FILE}; "
            "`piu-lora inspect` reads foreign LoRA files"
        )
    checks: list[Check] = []

    def passed(name: str, look: Callable[[], str]) -> bool:
        try:
            checks.append(Check(name, look()))
        except BadInput as error:
            checks.append(Check(name, str(error)))
        return not checks[-1].differs

    opened: list[Adapter] = []

    def files() -> str:
        opened.append(read_adapter(folder))
        return ""

    if not passed("files", files):
        return Verdict(tuple(checks))
    people = opened[0].receipt.people
    if not passed("weights", lambda: _weights(opened[0])):
        return Verdict(tuple(checks), people)
    pipe = as_pipeline(base, device)
    if not passed("base", lambda: _fits(pipe, opened[0])) or not _effect(pipe, opened[0], checks, passed):
        return Verdict(tuple(checks), people)
    if identity is None:
        checks.append(
            Check("figures", skipped="whom it forgets is not given; with `identity` they are measured again")
        )
    elif not opened[0].receipt.figures():
        checks.append(Check("figures", skipped="the receipt states none"))
    else:
        passed("figures", lambda: _figures(opened[0], identity, pipe, bank, pack, progress))
    return Verdict(tuple(checks), people)


def _fits(pipe: StableDiffusionPipeline, adapter: Adapter) -> str:
    require_base(pipe, adapter)
    return ""


def _weights(adapter: Adapter) -> str:
    """Both weight files hold the same, and the header carries the digest of the receipt's settings."""
    receipt, lora = adapter.receipt, read_lora(adapter.path / DIFFUSERS_FILE)
    digest = settings_digest(receipt.base, receipt.method, receipt.settings)
    if f'"{digest}"' not in lora.header.get("piu_lora", ""):
        return "the settings in the receipt are not those that the weights were written with"
    for part in ("unet", "text_encoder"):
        folder = peft_folder(adapter.path)
        path = folder / PEFT_FILE if part == "unet" else folder / part / PEFT_FILE
        change = {
            module: factors for module, factors in adapter.change.items() if module.startswith(f"{part}.")
        }
        if not change:
            continue
        peft_change = without_zeros(read_lora(path).change)
        if change.keys() != peft_change.keys() or any(
            not _same(change[module], peft_change[module]) for module in change
        ):
            return f"{path.name} for PEFT holds other weights than {DIFFUSERS_FILE}"
    return ""


def _same(first: object, second: object) -> bool:
    return all(torch.equal(getattr(first, side), getattr(second, side)) for side in ("down", "up"))


def _effect(
    pipe: StableDiffusionPipeline,
    adapter: Adapter,
    checks: list[Check],
    passed: Callable[[str, Callable[[], str]], bool],
) -> bool:
    """Loaded, it must change the predicted noise as stated; where nothing is stated, it must change it at
    all.
    """
    probe = adapter.receipt.probe
    if pipe.unet.dtype != torch.float32:
        checks.append(
            Check(
                "effect",
                skipped=(
                    "the pipeline is in half precision, whose rounding hides small effects; "
                    "pass one in float32"
                ),
            )
        )
        return True

    def look() -> str:
        try:
            seed = int(probe.get("seed", 0))
            measured = _measured(pipe, adapter, seed)
            return (
                compare_probe(probe, measured)
                if probe
                else ""
                if measured.max() > 0
                else "loaded, it changes nothing"
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(f"the probe in the receipt is damaged: {error}") from error

    fine = passed("effect", look)
    if fine and not probe:
        checks[-1] = Check(
            "effect", skipped="the receipt states no probe; the adapter loads and changes the predicted noise"
        )
    return fine


def _measured(pipe: StableDiffusionPipeline, adapter: Adapter, seed: int) -> Array:
    name = load_adapter(pipe, adapter)
    try:
        return measure_probe(pipe, lambda: adapters_disabled(pipe), seed)
    finally:
        unload(pipe, [name])


def _figures(
    adapter: Adapter,
    identity: str | Path,
    pipe: StableDiffusionPipeline,
    bank: IdentityBank | str | Path | None,
    pack: str | Path | None,
    progress: Progress,
) -> str:
    """Every ISM after must lie in the interval that the receipt states for it."""
    try:
        figures = evaluate(
            adapter.path, identity, pipe, bank=bank, pack=pack, settings=_LEAN, progress=progress
        ).figures
    except PiuLoraError as error:
        raise BadInput(str(error)) from error
    for figure in adapter.receipt.figures():
        if figure.recognizer not in figures:
            return f"the {figure.recognizer} recognizer is not at hand, and the receipt states its figures"
        measured, (low, high) = (
            figures[figure.recognizer]["ism"][figure.group]["after"],
            figure.after_interval,
        )
        if not low <= measured <= high:
            return (
                f"{figure.group} ISM ({figure.recognizer}) is {measured:.3f}, "
                f"the receipt states {figure.after:.3f} [{low:.3f}, {high:.3f}]"
            )
    return ""
