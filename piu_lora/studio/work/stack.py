"""Adapters together: who is hurt by whom, one adapter of several, a base with all of them in its weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from piu_lora.studio.bench import Bench
from piu_lora.studio.queue import Job
from piu_lora.studio.visitors import MadeAdapter, Visitor

if TYPE_CHECKING:
    from piu_lora.jobs.stacks.check import StackCheck
    from piu_lora.jobs.stacks.members import StackMember
    from piu_lora.progress import Progress

__all__ = ["Checked", "Column", "Written", "check_work", "fuse_work", "merge_work"]

_BYSTANDERS, _COLUMNS = 64, 10


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
    """The interference of a stack, its most changed bystanders first."""

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    limit: float
    own_limit: float

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
            members, made = _members(bench, visitor, keys, job.progress)
            check = check_stack(members, session.pipe, session.bank, people=_BYSTANDERS)
        job.show(_table(bench, check, made))

    return work


def _members(
    bench: Bench, visitor: Visitor, keys: Sequence[str], progress: "Progress"
) -> "tuple[list[StackMember], list[MadeAdapter]]":
    from piu_lora.jobs.stacks.members import open_members, with_people

    made = [visitor.adapter(key) for key in keys]
    session = bench.session(progress)
    members = open_members([one.path for one in made])
    people = [one.person for one in made]
    return with_people(members, people, session.pipe, session.bank, bench.choice.pack), made


def _table(bench: Bench, check: "StackCheck", made: Sequence[MadeAdapter]) -> Checked:
    table, bank = check.interference.condition, bench.bank
    worst = sorted(check.bystanders, key=lambda column: -table[:, column].max())[:_COLUMNS]
    owners = [
        Column(made[owner].person, bench.row_of(made[owner].person), made[owner].name)
        for owner in check.owners
    ]
    rows = [check.rows[column - len(check.owners)] for column in worst]
    columns = [*owners, *(Column(bank.ids[row], row) for row in rows)]
    places = [*range(len(check.owners)), *worst]
    names = dict(zip(check.ids, (one.name for one in made), strict=True))
    lines = [
        Line(
            f"all {len(stack)}" if len(stack) > 2 else " + ".join(made[index].name for index in stack),
            tuple(float(table[place, column]) for column in places),
            check.interference.harm(place, check.bystanders)["p95"],
            tuple((names[key], share) for key, share in check.disturbed(place).items()),
            check.over(place),
        )
        for place, stack in enumerate(check.interference.stacks)
    ]
    return Checked(tuple(columns), tuple(lines), check.limit, check.own_limit)


def merge_work(bench: Bench, visitor: Visitor, keys: Sequence[str], method: str) -> Callable[[Job], None]:
    """One adapter of several."""

    def work(job: Job) -> None:
        from piu_lora.jobs.stacks.merge import MergeSettings, merge_adapters

        with job.progress(f"merge by {method}", 0):
            members, made = _members(bench, visitor, keys, job.progress)
            session = bench.session(job.progress)
            out = visitor.new_folder("merged")
            merged = merge_adapters(
                members, out, MergeSettings(method=method), base=session.pipe, bank=session.bank
            )
        key = merged.receipt.adapter_id
        who = "; ".join(one.name for one in made)
        visitor.adapters[key] = MadeAdapter(out, "", f"merged of {len(made)}: {who}")
        visitor.downloads[job.key] = (out, f"adapter-{key}")
        job.show(Written(f"One adapter of {len(made)}, by {method}: {who}", key, _size(out)))

    return work


def fuse_work(bench: Bench, visitor: Visitor, keys: Sequence[str]) -> Callable[[Job], None]:
    """A whole base with the adapters in its weights."""

    def work(job: Job) -> None:
        from piu_lora.jobs.stacks.fuse import fuse_adapters

        with job.progress("fuse", 0):
            members, made = _members(bench, visitor, keys, job.progress)
            out = visitor.new_folder("fused")
            fuse_adapters(members, bench.choice.base, out)
        visitor.downloads[job.key] = (out, "fused-base")
        who = "; ".join(one.name for one in made)
        job.show(Written(f"The whole base with these adapters in its weights: {who}", "", _size(out)))

    return work


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
