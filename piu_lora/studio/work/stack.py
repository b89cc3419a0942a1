"""Adapters together: who is hurt by whom, one adapter of several, a base with all of them in its weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from piu_lora.studio.bench import Bench
from piu_lora.studio.queue import Job
from piu_lora.studio.visitors import MadeAdapter, Visitor
from piu_lora.studio.work.pictures import Draw, Pair, draw_pairs

if TYPE_CHECKING:
    import torch

    from piu_lora.jobs.stacks.check import StackCheck
    from piu_lora.jobs.stacks.members import StackMember
    from piu_lora.progress import Progress

__all__ = ["Checked", "Column", "Written", "check_work", "fuse_work", "merge_work"]

_BYSTANDERS, _COLUMNS, _HURT = 64, 10, 4


@dataclass(frozen=True)
class Column:
    """Somebody on the heat map.

    Attributes:
        row: of the bank; None for somebody who is not in it.
        own: the adapter that is meant to change them; empty for a bystander.
    """

    name: str
    row: int | None
    own: str = ""


@dataclass(frozen=True)
class Line:
    """A stack on the heat map.

    Attributes:
        changes: of each column's person, ``|dW x| / |W x|``.
        disturbed: by adapter, what the others change for its person as a share of what it means to change.
    """

    label: str
    changes: tuple[float, ...]
    p95: float
    disturbed: tuple[tuple[str, float], ...]
    over: bool


@dataclass(frozen=True)
class Checked:
    """The interference of a stack, its most changed bystanders first.

    Attributes:
        hurt: those bystanders, before and with all adapters; empty until they are drawn.
    """

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    limit: float
    own_limit: float
    hurt: tuple[Pair, ...] = ()

    @property
    def top(self) -> float:
        """The largest change."""
        return max((value for line in self.lines for value in line.changes), default=0.0) or 1.0

    @property
    def over(self) -> bool:
        """Whether any stack exceeds a limit."""
        return any(line.over for line in self.lines)


@dataclass(frozen=True)
class Written:
    """A folder to take along."""

    words: str
    adapter: str = ""
    bytes: int = 0


def check_work(bench: Bench, visitor: Visitor, keys: Sequence[str]) -> Callable[[Job], None]:
    """The heat map of who is hurt by whom."""

    def work(job: Job) -> None:
        from piu_lora.jobs.stacks.check import check_stack

        with job.progress("measure the stack", 0):
            session = bench.session(job.progress)
            members, adapters = _members(bench, visitor, keys, job.progress)
            check = check_stack(members, session.pipe, session.bank, people=_BYSTANDERS)
        table = _table(bench, check, adapters)
        job.show(table)
        job.show(replace(table, hurt=_hurt(bench, table, adapters, job)))

    return work


def _hurt(bench: Bench, table: Checked, adapters: Sequence[MadeAdapter], job: Job) -> tuple[Pair, ...]:
    """The bystanders who are changed most, drawn with all adapters, and by whose adapter."""
    from piu_lora.adapter import load_adapters, unload
    from piu_lora.config import ForgetConfig

    session = bench.session(job.progress)
    pipe, bank = session.pipe, session.bank
    evaluation = ForgetConfig.preset(session.family).evaluation
    faces: list[tuple[str, torch.Tensor, int]] = []
    for index, column in enumerate(table.columns):
        if column.own or column.row is None or len(faces) == _HURT:
            continue
        alone = table.lines[: len(adapters)]
        worst = max(alone, key=lambda line: line.changes[index])
        label = f"{column.name}, most by {worst.label}" if len(adapters) > 1 else column.name
        faces.append((label, bank.centroid(column.row), 1))
    names = load_adapters(pipe, [adapter.path for adapter in adapters])
    try:
        how = Draw(evaluation.steps, evaluation.guidance)
        return tuple(draw_pairs(pipe, faces, how, job.progress, reader=session.reader))
    finally:
        unload(pipe, names)


def _members(
    bench: Bench, visitor: Visitor, keys: Sequence[str], progress: "Progress"
) -> "tuple[list[StackMember], list[MadeAdapter]]":
    from piu_lora.jobs.stacks.members import open_members, with_people

    adapters = [visitor.adapter(key) for key in keys]
    session = bench.session(progress)
    members = open_members([adapter.path for adapter in adapters])
    people = [adapter.person for adapter in adapters]
    return with_people(members, people, session.pipe, session.bank, bench.choice.pack), adapters


def _table(bench: Bench, check: "StackCheck", adapters: Sequence[MadeAdapter]) -> Checked:
    table, bank = check.interference.condition, bench.bank
    worst = sorted(check.bystanders, key=lambda column: -table[:, column].max())[:_COLUMNS]
    owners = [
        Column(adapters[owner].person, bench.row_of(adapters[owner].person), adapters[owner].name)
        for owner in check.owners
    ]
    rows = [check.rows[column - len(check.owners)] for column in worst]
    columns = [*owners, *(Column(bank.ids[row], row) for row in rows)]
    places = [*range(len(check.owners)), *worst]
    shorts = _shorts(bench, adapters)
    names = dict(zip(check.ids, shorts, strict=True))
    lines = [
        Line(
            f"all {len(stack)}" if len(stack) > 2 else " + ".join(shorts[index] for index in stack),
            tuple(float(table[position, column]) for column in places),
            check.interference.harm(position, check.bystanders)["p95"],
            tuple((names[key], share) for key, share in check.disturbed(position).items()),
            check.over(position),
        )
        for position, stack in enumerate(check.interference.stacks)
    ]
    return Checked(tuple(columns), tuple(lines), check.limit, check.own_limit)


def _shorts(bench: Bench, adapters: Sequence[MadeAdapter]) -> list[str]:
    """What adapters are called on the map: whom they forget, where that is somebody of the bank, once."""
    people = [adapter.person for adapter in adapters]
    return [
        adapter.person if adapter.person in bench.bank and people.count(adapter.person) == 1 else adapter.name
        for adapter in adapters
    ]


def merge_work(bench: Bench, visitor: Visitor, keys: Sequence[str], method: str) -> Callable[[Job], None]:
    """One adapter of several."""

    def work(job: Job) -> None:
        from piu_lora.jobs.stacks.merge import MergeSettings, merge_adapters

        with job.progress(f"merge by {method}", 0):
            members, adapters = _members(bench, visitor, keys, job.progress)
            session = bench.session(job.progress)
            out = visitor.new_folder("merged")
            merged = merge_adapters(
                members, out, MergeSettings(method=method), base=session.pipe, bank=session.bank
            )
        key = merged.receipt.adapter_id
        who = "; ".join(adapter.name for adapter in adapters)
        visitor.adapters[key] = MadeAdapter(out, "", f"merged of {len(adapters)}: {who}")
        visitor.downloads[job.key] = (out, f"adapter-{key}")
        job.show(Written(f"One adapter of {len(adapters)}, by {method}: {who}", key, _size(out)))

    return work


def fuse_work(bench: Bench, visitor: Visitor, keys: Sequence[str]) -> Callable[[Job], None]:
    """A whole base with the adapters in its weights."""

    def work(job: Job) -> None:
        from piu_lora.jobs.stacks.fuse import fuse_adapters

        with job.progress("fuse", 0):
            members, adapters = _members(bench, visitor, keys, job.progress)
            out = visitor.new_folder("fused")
            fuse_adapters(members, bench.choice.base, out)
        visitor.downloads[job.key] = (out, "fused-base")
        who = "; ".join(adapter.name for adapter in adapters)
        job.show(Written(f"The whole base with these adapters in its weights: {who}", "", _size(out)))

    return work


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
