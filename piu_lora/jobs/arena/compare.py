"""The arena: methods side by side, on the same people, split, seeds, anchors and judges. Cells are kept
as they come; a stopped run goes on.
"""

import hashlib
import json
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from piu_lora.adapter import disk_errors, write_file
from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput
from piu_lora.evidence import (
    Cell,
    Difference,
    Row,
    comparison_csv,
    comparison_picture,
    comparison_table,
    difference_table,
    differences_from,
    rows_of,
)
from piu_lora.identity import IdentityBank
from piu_lora.jobs.arena.cells import CellStore
from piu_lora.jobs.arena.round import SHARED, UNTOUCHED, Contender, Round, known_methods
from piu_lora.jobs.request.readers import SecondRecognizer, open_second
from piu_lora.jobs.request.request import bank_for, open_request
from piu_lora.jobs.request.session import Session, open_session
from piu_lora.model import BaseFamily, family_of
from piu_lora.progress import Progress, silent
from piu_lora.unlearn import METHODS
from piu_lora.unlearn.baselines import BASELINES

__all__ = ["Comparison", "compare", "contenders", "drawn_people", "shared_settings"]

FORMAT = "piu_lora.comparison/1"
Task = tuple[int, str, int, Contender]  # place in the arena's list, id in the bank, seed, and who plays


@dataclass(frozen=True)
class Comparison:
    """The cells that are there, a row for each variant and recognizer, what sets them apart, all as text, and
    the files written.
    """

    cells: list[Cell]
    rows: list[Row]
    differences: list[Difference]
    text: str
    files: list[Path]


@dataclass(frozen=True)
class _Arena:
    """What every cell of an arena has in common."""

    base: str
    bank: str | None
    pack: str | Path | None
    second: str | Path | None
    second_bank: str | Path | None
    device: str
    config: ForgetConfig

    def opened_second(self) -> SecondRecognizer | None:
        """The recognizer that only evaluates, where one is given."""
        return open_second(self.second, self.second_bank, self.device)

    def digest(self, bank: IdentityBank, second: SecondRecognizer | None) -> str:
        """Two runs with one digest may share cells."""
        settings = self.config.to_dict()
        facts = [FORMAT, self.base, bank.digest, {name: settings[name] for name in SHARED}]
        if second is not None:
            facts.append(second.bank.digest)
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def contenders(
    methods: Sequence[str], vary: Sequence[str] = (), variants: Sequence[str] = ()
) -> list[Contender]:
    """The methods, and variants of each of ours with one setting changed at a time.

    Args:
        vary: ``section.key=value,value,...``; a baseline's own setting is ``baseline:key=value,...``.
        variants: a method and what is set for it, ``method section.key=value section.key=value ...``.

    Raises:
        BadInput: an unknown method; a setting without values.
    """
    known = known_methods()
    for method in methods:
        if method not in known:
            raise BadInput(f"unknown method {method!r}; known: {', '.join(known)}")
    found = [Contender(method) for method in dict.fromkeys(methods)]
    for text in vary:
        owner, _, setting = text.rpartition(":")
        key, separator, values = setting.partition("=")
        if not separator or not values:
            raise BadInput(f"vary = {text!r} has no values; write it as section.key=value,value")
        chosen = [owner] if owner else [method for method in methods if method in METHODS]
        if owner and owner not in methods:
            raise BadInput(
                f"vary = {text!r} names {owner!r}, which is not among the methods compared: {', '.join(methods)}"
            )
        found += [Contender(method, (f"{key}={value}",)) for method in chosen for value in values.split(",")]
    for text in variants:
        method, *pairs = text.split()
        if method not in known:
            raise BadInput(f"variants = {text!r} begins with no method; known: {', '.join(known)}")
        found.append(Contender(method, tuple(pairs)))
    return list(dict.fromkeys(found))


def compare(
    out: str | Path, methods: Sequence[str], *, people: int = 20, seeds: int = 2, vary: Sequence[str] = (), variants: Sequence[str] = (),
    base: str = "mini", bank: str | None = None, pack: str | Path | None = None, second: str | Path | None = None,
    second_bank: str | Path | None = None, config: ForgetConfig | None = None, processes: int = 1, device: str = "auto",
    against: str | None = None, report_only: bool = False, progress: Progress = silent,
) -> Comparison:  # fmt: skip
    """Run the cells that are missing, and write the tables and the picture anew.

    Args:
        out: a folder with ``arena.json``, ``cells.jsonl.gz``, and ``comparison`` as .md, .csv, .json and .png; one
            that is there is gone on with.
        methods: see ``known_methods``.
        people: drawn from the bank; on the embedded base, nobody who was used to choose defaults.
        seeds: of each person, from ``config.seed`` on.
        vary, variants: see ``contenders``. A contender that varies ``anchor`` or ``split`` meets cases of its
            own.
        second, second_bank: face pack of a recognizer that only evaluates, and the bank's people by it; the
            embedded base has its own.
        config: the split, anchors and evaluation that all methods share; the base's preset with synthetic
            anchors by default.
        processes: run at once, with an equal share of the processor's threads.
        against: the method or variant, by its name in the tables, that all others are compared with on the
            cells that both have; the first that changes anything by default.
        report_only: run nothing: the tables are made of the cells that are there, and say how many each
            method has.

    Raises:
        BadInput: an unknown method or setting, one that cannot run on this base, too few people, a folder of
            another arena, a damaged cell, or nothing to report.
    """
    entrants = contenders(methods, vary, variants)
    family = family_of(base)
    names = [entrant.name for entrant in entrants]
    if against is not None and against not in names:
        raise BadInput(f"against = {against!r} is not among what is compared: {', '.join(names)}")
    arena = _Arena(base, bank, pack, second, second_bank, device, config or shared_settings(family))
    _require_shared(arena.config, family)
    settings = {
        entrant: entrant.settings(arena.config, family) for entrant in entrants
    }  # refuses what cannot run, before anything does
    everybody, judge = bank_for(base, bank), arena.opened_second()
    if judge is not None:
        judge.require_people_of(everybody)
    folder = Path(out)
    chosen = drawn_people(everybody, family, people)
    _enter(folder, arena.digest(everybody, judge), arena.config, found=not report_only)
    wanted = [
        (place, who, arena.config.seed + seed, entrant)
        for seed in range(seeds) for place, who in enumerate(chosen) for entrant in entrants
    ]  # fmt: skip
    store = CellStore(folder)
    cells = {task: _stored(store, task, settings[task[3]]) for task in wanted}
    if not report_only:
        missing = [task for task in wanted if cells[task] is None]
        with progress("compare", len(wanted), len(wanted) - len(missing)) as advance:
            for task, cell in _played(arena, missing, processes):
                store.add(cell)
                cells[task] = cell
                advance(1)
    against = against or next((name for name in names if name != UNTOUCHED), UNTOUCHED)
    there = [
        cell
        for entrant in entrants
        for task, cell in cells.items()
        if task[3] == entrant and cell is not None
    ]
    if not there:
        raise BadInput(
            f"{str(folder)!r} holds no cell of {', '.join(names)} with these settings; run them first"
        )
    baselines = {entrant.name: settings[entrant] for entrant in entrants if entrant.method in BASELINES}
    return _report(folder, there, len(wanted), against, baselines)


def _require_shared(config: ForgetConfig, family: BaseFamily) -> None:
    """Only what all contenders share may be set for all of them."""
    plain = shared_settings(family).to_dict()
    for name, values in config.to_dict().items():
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


def _enter(folder: Path, digest: str, config: ForgetConfig, *, found: bool) -> None:
    """Found an arena, or make sure that the one there is the same."""
    path = folder / "arena.json"
    if not path.exists():
        if not found:
            raise BadInput(f"{str(folder)!r} holds no arena; leave report_only=True out to begin one")
        settings = {name: value for name, value in config.to_dict().items() if name in SHARED}
        settings["anchor"]["identity"] = ""
        with disk_errors(f"the arena to {str(folder)!r}"):
            folder.mkdir(parents=True, exist_ok=True)
            write_file(
                path,
                (
                    json.dumps({"format": FORMAT, "digest": digest, "settings": settings}, indent=1) + "\n"
                ).encode(),
            )
        return
    try:
        known = json.loads(path.read_text())["digest"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{str(path)!r} is damaged: {error}; restore it, or compare into another folder"
        ) from error
    if known != digest:
        raise BadInput(
            f"{str(folder)!r} holds an arena of another base, bank or settings; pass the same `settings`, or another `out`"
        )


def _stored(store: CellStore, task: Task, settings: dict[str, Any]) -> Cell | None:
    """The cell on disk; None where there is none, or one of other settings."""
    place, _, seed, entrant = task
    cell = store.find(entrant.name, place, seed)
    return cell if cell is not None and cell.settings == settings else None


def _played(arena: _Arena, tasks: Sequence[Task], processes: int) -> Iterator[tuple[Task, Cell]]:
    if processes <= 1:
        for task in tasks:
            yield task, _play(arena, task)
        return
    threads = max(torch.get_num_threads() // processes, 1)
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        processes, mp_context=fresh, initializer=torch.set_num_threads, initargs=(threads,)
    ) as pool:
        futures = {pool.submit(_play, arena, task): task for task in tasks}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            for future in futures:
                future.cancel()


def _play(arena: _Arena, task: Task) -> Cell:
    place, who, seed, entrant = task
    own = entrant.request_settings(arena.config, family_of(arena.base)).updated({"seed": seed})
    return _round(arena, who, own).play(entrant, place)


_LAST: dict[
    tuple[_Arena, str, ForgetConfig], Round
] = {}  # methods of one person and seed come one after the other


def _round(arena: _Arena, who: str, config: ForgetConfig) -> Round:
    if any((where, person, other.seed) != (arena, who, config.seed) for where, person, other in _LAST):
        _LAST.clear()
    if (arena, who, config) not in _LAST:
        session = _loaded(arena)
        _LAST[arena, who, config] = Round(session, open_request(who, session.bank, config, session.reader))
    return _LAST[arena, who, config]


@cache
def _loaded(arena: _Arena) -> Session:
    return open_session(
        arena.base, arena.bank, arena.pack, faces=arena.config.faces, second=arena.opened_second(),
        device=arena.device,
    )  # fmt: skip


def _report(
    folder: Path, cells: list[Cell], wanted: int, against: str, baselines: dict[str, dict[str, Any]]
) -> Comparison:
    rows, differences = rows_of(cells), differences_from(cells, against)
    people, seeds = len({cell.person for cell in cells}), sorted({cell.seed for cell in cells})
    fewer = (
        " A method with fewer cells met only the first of these people, or one seed."
        if len(cells) < wanted
        else ""
    )
    parts = [
        f"{people} people, {len(seeds)} seeds.{fewer} Medians over people and seeds (recognised and verified: means) with 95 % "
        "intervals over people. Retained people and the anchor: ISM after/before. Verified: at a false-accept rate of 1e-3, against the "
        "person's centroid in the bank.",
        comparison_table(rows),
    ]
    if differences:
        parts.append(difference_table(differences))
    if baselines:
        parts.append(
            "\n".join(
                [
                    "Settings of the baselines:",
                    "",
                    *(f"- {name}: {_told(settings)}" for name, settings in baselines.items()),
                ]
            )
        )
    document = {
        "format": FORMAT, "people": people, "seeds": seeds, "rows": [asdict(row) for row in rows],
        "differences": [asdict(each) for each in differences],
    }  # fmt: skip
    text = "\n\n".join(parts)
    files = {
        "comparison.md": f"{text}\n".encode(),
        "comparison.csv": comparison_csv(rows).encode(),
        "comparison.json": (json.dumps(document, indent=1) + "\n").encode(),
        "comparison.png": comparison_picture(rows),
    }
    with disk_errors(f"the comparison to {str(folder)!r}"):
        for name, content in files.items():
            write_file(folder / name, content)
    return Comparison(cells, rows, differences, text, [folder / name for name in files])


def _told(settings: dict[str, Any]) -> str:
    """``key value, key value``; sections in brackets."""
    return ", ".join(
        f"{key} ({_told(value)})" if isinstance(value, dict) else f"{key} {value}"
        for key, value in settings.items()
    )
