"""What every cell of an arena has in common: base, bank, judges, settings and the people."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from piu_lora.adapter import disk_errors, write_file
from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput
from piu_lora.identity import IdentityBank
from piu_lora.jobs.arena.contender import SHARED
from piu_lora.jobs.request.readers import SecondRecognizer, open_second
from piu_lora.jobs.request.session import Session, open_session
from piu_lora.model import BaseFamily, family_of
from piu_lora.writing import check_target, make_folder

__all__ = ["FORMAT", "Arena", "drawn_people", "enter_arena", "read_arena", "shared_settings"]

FORMAT = "piu_lora.comparison/1"

_BAND = 0.05  # what anchor.band was before it was a setting: arenas of that time do not hold it


@dataclass(frozen=True)
class Arena:
    """How every process opens the session in which it runs cells, and the settings that all methods share.

    Attributes:
        base, bank, pack, device: as for ``forget``, by name.
        second, second_bank: as for ``open_second``.
        config: split, anchors and evaluation.
        sweep, keep: as for ``Round``.
    """

    base: str
    bank: str | None
    pack: str | Path | None
    second: str | Path | None
    second_bank: str | Path | None
    device: str
    config: ForgetConfig
    sweep: bool = False
    keep: Path | None = None

    @property
    def family(self) -> BaseFamily:
        """The base's family."""
        return family_of(self.base)

    def open_second(self) -> SecondRecognizer | None:
        """The recognizer that only evaluates, where one is given."""
        return open_second(self.second, self.second_bank, self.device)

    def open_session(self) -> Session:
        """The session of one process; it says nothing of its progress."""
        return open_session(
            self.base,
            self.bank,
            self.pack,
            faces=self.config.faces,
            second=self.open_second(),
            device=self.device,
        )

    def digest(self, bank: IdentityBank, second: SecondRecognizer | None) -> str:
        """Two runs with one digest may share cells."""
        settings = self.config.to_dict()
        shared = {name: dict(settings[name]) if name == "anchor" else settings[name] for name in SHARED}
        if shared["anchor"]["band"] == _BAND:
            del shared["anchor"]["band"]
        facts = [FORMAT, self.base, bank.digest, shared]
        if second is not None:
            facts.append(second.bank.digest)
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def require_shared(self) -> None:
        """Only what all contenders share may be set for all of them.

        Raises:
            BadInput: the settings change something else.
        """
        plain = shared_settings(self.family).to_dict()
        for name, values in self.config.to_dict().items():
            if name not in (*SHARED, "method") and values != plain.get(name):
                raise BadInput(
                    f"the setting {name} is not shared by all contenders, each method has its own; "
                    f"pass vary='{name}.key=VALUE' or variants='METHOD {name}.key=VALUE'"
                )


def shared_settings(family: BaseFamily) -> ForgetConfig:
    """What the arena gives to everybody: the base's preset, with anchors who are nobody."""
    return ForgetConfig.preset(family).updated({"anchor": {"rule": "synthetic"}})


def drawn_people(bank: IdentityBank, family: BaseFamily, count: int) -> list[str]:
    """Ids of ``count`` people of the bank, always the same ones; on the embedded base, nobody who was used to
    choose defaults.

    Raises:
        BadInput: the bank has too few.
    """
    left_out = family.companions.tuned_on if family.companions else frozenset()
    order = torch.randperm(len(bank), generator=torch.Generator().manual_seed(0)).tolist()
    free = [row for row in order if row not in left_out]
    if not 1 <= count <= len(free):
        raise BadInput(f"people = {count} is out of range: the bank has {len(free)} people to draw from")
    return [bank.ids[row] for row in free[:count]]


def read_arena(folder: Path) -> tuple[str, dict[str, Any]]:
    """The digest of the arena in a folder, and the settings that its contenders share.

    Raises:
        BadInput: there is none, or a damaged one.
    """
    path = folder / "arena.json"
    try:
        stored = json.loads(path.read_text())
        return str(stored["digest"]), dict(stored["settings"])
    except FileNotFoundError as error:
        raise BadInput(
            f"{str(folder)!r} holds no arena; `piu-lora compare --out {folder}` makes one"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{str(path)!r} is damaged: {error}; restore it, or compare into another folder"
        ) from error


def enter_arena(folder: Path, digest: str, config: ForgetConfig, *, create: bool) -> None:
    """Create an arena in a folder, or make sure that the one there is the same.

    Raises:
        BadInput: there is none and ``create`` is off, a damaged one, or one of another digest.
    """
    check_target(folder)
    path = folder / "arena.json"
    if not path.exists():
        if not create:
            raise BadInput(f"{str(folder)!r} holds no arena; leave report_only=True out to begin one")
        settings = {name: value for name, value in config.to_dict().items() if name in SHARED}
        settings["anchor"]["identity"] = ""
        with disk_errors(f"the arena to {str(folder)!r}"):
            make_folder(folder)
            document = json.dumps({"format": FORMAT, "digest": digest, "settings": settings}, indent=1)
            write_file(path, f"{document}\n".encode())
        return
    stored, _ = read_arena(folder)
    if stored != digest:
        raise BadInput(
            f"{str(folder)!r} holds an arena of another base, bank or settings; "
            "pass the same `settings`, or another `out`"
        )
