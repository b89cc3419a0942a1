"""The arena: methods side by side, on the same people, split, seeds, anchors and judges. Cells are kept
as they come; a stopped run goes on.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from piu_lora.config import ForgetConfig
from piu_lora.engine import find_engine
from piu_lora.errors import BadInput
from piu_lora.evidence import Cell
from piu_lora.jobs.arena.arena import Arena, drawn_people, enter_arena, shared_settings
from piu_lora.jobs.arena.cell_runner import Task, run_cells
from piu_lora.jobs.arena.cells import CellStore
from piu_lora.jobs.arena.comparison import Comparison, write_comparison
from piu_lora.jobs.arena.contender import UNTOUCHED, Contender, known_methods
from piu_lora.jobs.request.request import bank_for
from piu_lora.model import BaseFamily, family_of
from piu_lora.progress import Progress, silent
from piu_lora.unlearn import METHODS
from piu_lora.unlearn.baselines import BASELINES

__all__ = ["compare", "contenders", "same_settings"]


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
    all_methods = known_methods()
    for method in methods:
        if method not in all_methods:
            raise BadInput(f"unknown method {method!r}; known: {', '.join(all_methods)}")
    entrants = [Contender(method) for method in dict.fromkeys(methods)]
    for text in vary:
        owner, _, setting = text.rpartition(":")
        key, separator, values = setting.partition("=")
        if not separator or not values:
            raise BadInput(f"vary = {text!r} has no values; write it as section.key=value,value")
        chosen = [owner] if owner else [method for method in methods if method in METHODS]
        if owner and owner not in methods:
            raise BadInput(
                f"vary = {text!r} names {owner!r}, which is not among the methods compared: "
                f"{', '.join(methods)}"
            )
        entrants += [
            Contender(method, (f"{key}={value}",)) for method in chosen for value in values.split(",")
        ]
    for text in variants:
        method, *pairs = text.split()
        if method not in all_methods:
            raise BadInput(f"variants = {text!r} begins with no method; known: {', '.join(all_methods)}")
        entrants.append(Contender(method, tuple(pairs)))
    return list(dict.fromkeys(entrants))


def compare(
    out: str | Path,
    methods: Sequence[str],
    *,
    people: int = 20,
    seeds: int = 2,
    vary: Sequence[str] = (),
    variants: Sequence[str] = (),
    base: str = "mini",
    bank: str | None = None,
    pack: str | Path | None = None,
    second: str | Path | None = None,
    second_bank: str | Path | None = None,
    config: ForgetConfig | None = None,
    processes: int = 1,
    engine: str = "processes",
    address: str = "",
    device: str = "auto",
    against: str | None = None,
    sweep: bool = False,
    keep: bool = False,
    report_only: bool = False,
    progress: Progress = silent,
) -> Comparison:
    """Run the cells that are missing, and write the tables and the picture anew.

    Args:
        out: a folder with ``arena.json``, ``cells.jsonl.gz``, and ``comparison`` as .md, .csv, .json and
            .png; an existing one is continued.
        methods: see ``known_methods``.
        people: drawn from the bank; on the embedded base, nobody who was used to choose defaults.
        seeds: of each person, from ``config.seed`` on.
        vary, variants: see ``contenders``. A contender that varies ``anchor`` or ``split`` meets cases of its
            own.
        second, second_bank: face pack of a recognizer that only evaluates, and the bank's people by it; the
            embedded base has its own.
        config: the split, anchors and evaluation that all methods share; the base's preset with synthetic
            anchors by default.
        processes: run at once, with an equal share of the processor's threads; of a cluster, its workers, 0
            for one on every processor.
        engine, address: ``processes`` of this machine, or ``ray``, a cluster (see ``engine.find_engine``);
            the cells are the same.
        against: the method or variant, by its name in the tables, that all others are compared with on the
            cells that both have; the first that changes anything by default.
        sweep: each method also at the other values of its dial of strength; the report then compares methods
            at equal forgetting.
        keep: keep what each method makes, in ``artefacts`` of the folder, for ``audit``.
        report_only: run nothing: the tables are made of the cells that are there, and say how many each
            method has.

    Raises:
        BadInput: an unknown method or setting, one that cannot run on this base, too few people, a folder of
            another arena, a damaged cell, or nothing to report.
    """
    # 1. Check everything that can be checked before anything runs.
    entrants = contenders(methods, vary, variants)
    names = [entrant.name for entrant in entrants]
    if against is not None and against not in names:
        raise BadInput(f"against = {against!r} is not among what is compared: {', '.join(names)}")
    shared = config or shared_settings(family_of(base))
    folder = Path(out)
    artefacts = folder / "artefacts" if keep else None
    arena = Arena(base, bank, pack, second, second_bank, device, shared, sweep, artefacts)
    arena.require_shared()
    if sweep:
        entrants = _with_dials(entrants, shared, arena.family)
    runner = find_engine(engine, processes, address)
    settings = {entrant: entrant.settings(shared, arena.family) for entrant in entrants}
    later = {entrant: entrant.plain_settings() for entrant in entrants}
    everybody, judge = bank_for(base, bank), arena.open_second()
    if judge is not None:
        judge.require_people_of(everybody)
    chosen = drawn_people(everybody, arena.family, people)
    enter_arena(folder, arena.digest(everybody, judge), shared, create=not report_only)

    # 2. Run the cells that are missing.
    tasks = [
        Task(index, identity, shared.seed + seed, entrant)
        for seed in range(seeds)
        for index, identity in enumerate(chosen)
        for entrant in entrants
    ]
    store = CellStore(folder)
    cells = {task: _stored(store, task, settings[task.contender], later[task.contender]) for task in tasks}
    if not report_only:
        missing = [task for task in tasks if cells[task] is None]
        with progress("compare", len(tasks), len(tasks) - len(missing)) as advance:
            for task, cell in run_cells(arena, missing, runner):
                store.add(cell)
                cells[task] = cell
                advance(1)

    # 3. Report what is there.
    finished = [
        cell
        for entrant in entrants
        for task, cell in cells.items()
        if task.contender == entrant and cell is not None
    ]
    if not finished:
        raise BadInput(
            f"{str(folder)!r} holds no cell of {', '.join(names)} with these settings; run them first"
        )
    against = against or next((name for name in names if name != UNTOUCHED), UNTOUCHED)
    ran_with = {cell.variant: cell.settings for cell in finished}
    baselines = {
        entrant.name: _as_run(ran_with[entrant.name], settings[entrant])
        for entrant in entrants
        if entrant.method in BASELINES and entrant.name in ran_with
    }
    wanted = len(tasks) // len(entrants)
    return write_comparison(folder, finished, wanted, against, baselines, _curves(entrants))


def _as_run(stored: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The settings that a cell holds, in the order of today's."""
    return {
        name: _as_run(stored[name], value) if isinstance(value, dict) else stored[name]
        for name, value in now.items()
        if name in stored
    }


def _with_dials(entrants: Sequence[Contender], shared: ForgetConfig, family: BaseFamily) -> list[Contender]:
    """Every contender, each followed by itself at other strengths: what differs in strength only is run
    once.
    """
    swept = [other for entrant in entrants for other in (entrant, *entrant.swept(shared, family))]
    return list(dict.fromkeys(swept))


def _curves(entrants: Sequence[Contender]) -> dict[str, str]:
    """By name of a contender, the one on whose curve it lies: that which has all but the dial in common."""
    curves = {}
    for entrant in entrants:
        if entrant.dial is not None:
            rest = [pair for pair in entrant.pairs if pair.partition("=")[0] != entrant.dial.setting]
            curves[entrant.name] = Contender(entrant.method, tuple(rest)).name
    return curves


def _stored(store: CellStore, task: Task, settings: dict[str, Any], plain: dict[str, Any]) -> Cell | None:
    """The cell on disk; None where there is none, or one of other settings."""
    cell = store.find(task.contender.name, task.person, task.seed)
    return cell if cell is not None and same_settings(cell.settings, settings, plain) else None


def same_settings(stored: Mapping[str, Any], now: Mapping[str, Any], plain: Mapping[str, Any]) -> bool:
    """Whether a cell was run with the settings of now.

    A setting that came after the cell was run is not in it; it must then be as it is by default, which leaves
    what a method did before.

    Args:
        plain: the defaults of all settings.
    """
    if stored.keys() - now.keys():
        return False
    for name, value in now.items():
        default = plain.get(name)
        if name not in stored:
            if value != default:
                return False
        elif isinstance(value, Mapping):
            if not isinstance(stored[name], Mapping) or not same_settings(
                stored[name], value, default if isinstance(default, Mapping) else {}
            ):
                return False
        elif value != stored[name]:
            return False
    return True
