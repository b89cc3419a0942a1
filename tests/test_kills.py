"""Whatever is killed, at any moment and at every change to a file: nothing is torn, nothing acknowledged is
lost, and the same command repeated ends as if nothing had happened.

The seeds are printed; PIU_LORA_KILLS repeats one. Each job has a few seconds, and tries as many kills as fit.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from piu_lora.adapter import Entry, Ledger, read_adapter
from piu_lora.adapter.leftovers import find_leftovers, remove_leftover
from piu_lora.identity import IdentityBank
from piu_lora.jobs.adapters.publish import push
from piu_lora.jobs.arena.cells import CellStore
from piu_lora.jobs.arena.compare import compare
from piu_lora.jobs.stacks.members import StackMember
from piu_lora.jobs.stacks.merge import merge_adapters
from tests.adapter.stacks import write_random
from tests.hub import REPO, LoopbackHub
from tests.jobs.arena.test_compare import config as arena_settings
from tests.jobs.banks.fake_photos import people
from tests.jobs.banks.test_build import build
from tests.kills import FORK, file_events, in_child, killed_at_event, killed_at_moment, seeded

pytestmark = pytest.mark.slow

SECONDS = 7.0  # for the kills of each job and kind, beside the repetitions
WEIGHTS = "pytorch_lora_weights.safetensors"


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenMP's threads do not outlive a fork; and what a kill left is removed at once, not after a minute."""
    torch.set_num_threads(1)
    monkeypatch.setattr("piu_lora.writing._QUIET", -1.0)


def tormented(
    work: Callable[[], object],
    folder: Path,
    check: Callable[[], None],
    *,
    finished: Callable[[], object],
    start: Callable[[], object] | None = None,
) -> None:
    """Kill a job at its changes to the files and at random moments; look, repeat it, and compare.

    Args:
        check: what must hold after every kill.
        finished: what must be the same after every repetition.
        start: lays the folder out as the job finds it; it is empty by default.
    """
    chance = seeded(os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0])
    start = start or partial(emptied, folder)
    start()
    work()  # whatever it imports is there for the children
    start()
    events, seconds = in_child(work, folder)
    assert events > 0
    wanted, kills = finished(), 0
    moments = iter(lambda: chance.uniform(0, 1.1 * seconds), None)
    tries = [partial(killed_at_event, work, folder, n) for n in file_events(events, chance, SECONDS)]
    end = time.monotonic() + SECONDS
    for number, attempt in enumerate(tries):
        # Every third at a moment that no file knows of.
        chosen = partial(killed_at_moment, work, folder, next(moments)) if number % 3 == 2 else attempt
        start()
        if chosen():
            kills += 1
            check()
        work_again = in_child(work, folder)
        assert work_again[0] >= 0
        assert finished() == wanted
        if time.monotonic() > end:
            break
    sys.stdout.write(f"{kills} kills; {events} changes to files, {seconds:.1f} s\n")
    assert kills


def emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def assert_nothing_left(folder: Path, *names: str) -> None:
    for leftover in [entry for entry in find_leftovers(folder) if entry.path.parent == folder]:
        remove_leftover(leftover)
    assert {path.name for path in folder.iterdir()} <= set(names)


def assert_whole(out: Path) -> None:
    """An adapter that is there can be read."""
    if out.exists():
        read_adapter(out)


def weights_alone(out: Path) -> bytes:
    """The weights of an adapter, beside which nothing is left."""
    assert_nothing_left(out.parent, out.name)
    return (out / WEIGHTS).read_bytes()


def forget_again(run: Callable[..., Any], out: Path, **changes: Any) -> None:
    """As somebody would who repeats the command until it is done."""
    if not out.exists():
        run(out, resume=out.with_name(f".{out.name}.checkpoint").exists(), **changes)


@pytest.fixture
def forgetting(pipe: Any, bank: IdentityBank, fast: Any) -> Callable[..., Any]:
    """Forget somebody by the fast settings; every child has a copy of the pipeline."""
    from piu_lora import forget

    def run(out: Path, resume: bool = False, force: bool = False, steps: int = 2) -> Any:
        config = fast.updated({"train": {"steps": steps}})
        options = {"bank": bank, "config": config, "evaluate": False, "resume": resume, "force": force}
        return forget("person-003", pipe, out, **options)

    return run


@pytest.mark.parametrize("steps", [1, 6])
def test_forget_and_resume(forgetting: Callable[..., Any], tmp_path: Path, steps: int) -> None:
    folder, out = tmp_path / "work", tmp_path / "work" / "out"
    work = partial(forget_again, forgetting, out, steps=steps)
    tormented(work, folder, partial(assert_whole, out), finished=partial(weights_alone, out))


def test_forced(forgetting: Callable[..., Any], tmp_path: Path) -> None:
    """``force`` between its two renames, and elsewhere: the earlier adapter or the new one, never none."""
    folder, out, kept = tmp_path / "work", tmp_path / "work" / "out", tmp_path / "earlier"
    forgetting(kept, steps=1)
    earlier = (kept / WEIGHTS).read_bytes()

    def start() -> None:
        shutil.copytree(kept, emptied(folder) / "out")

    def check() -> None:
        retired = folder / ".out.replaced"
        adapter = read_adapter(out if out.exists() else retired)
        if not out.exists():
            assert (adapter.path / WEIGHTS).read_bytes() == earlier
            (lost,) = (entry for entry in find_leftovers(folder) if entry.restore)
            assert lost.restore == out

    def finished() -> bytes:
        new = weights_alone(out)
        assert new != earlier
        return new

    tormented(partial(forgetting, out, force=True), folder, check, start=start, finished=finished)


def test_bank_build(tmp_path: Path) -> None:
    photos, folder = people(tmp_path / "photos", 20, 4), tmp_path / "work"
    out = folder / "bank.safetensors"

    def check() -> None:
        if out.exists():
            IdentityBank.load(out)

    def finished() -> bytes:
        assert_nothing_left(folder, out.name)
        return out.read_bytes()

    tormented(lambda: out.exists() or build(photos, out), folder, check, finished=finished)


def test_merge(pipe: Any, tmp_path: Path) -> None:
    adapters = [write_random(pipe, tmp_path / str(seed), seed, encoder=True) for seed in (1, 2, 3)]
    folder, out = tmp_path / "work", tmp_path / "work" / "out"
    members = [StackMember(entry, 1.0) for entry in adapters]
    tormented(
        lambda: out.exists() or merge_adapters(members, out),
        folder,
        partial(assert_whole, out),
        finished=partial(weights_alone, out),
    )


def test_compare(tmp_path: Path) -> None:
    """A cell that is there stays there, bytes and seconds."""
    folder, seen = tmp_path / "work", set[tuple[str, float]]()

    def cells() -> set[tuple[str, float]]:
        store = CellStore(folder)
        store.find("", 0, 0)
        return {(cell.variant, cell.seconds) for cell in (store._cells or {}).values()}

    def start() -> None:
        emptied(folder)
        seen.clear()

    def check() -> None:
        seen.update(cells())

    def finished() -> tuple[list[str], list[Any]]:
        assert seen <= cells()
        assert_nothing_left(folder, "cells.jsonl.gz", ".cells.jsonl.gz.lock", *_TABLES)
        return sorted(variant for variant, _ in cells()), sorted(path.name for path in folder.iterdir())

    tormented(
        partial(compare, folder, ["untouched", "uce"], people=1, seeds=1, config=arena_settings()),
        folder,
        check,
        start=start,
        finished=finished,
    )


_TABLES = ("arena.json", "comparison.csv", "comparison.json", "comparison.md", "comparison.png")


def _write_entries(path: Path, start: int, pipe: Any) -> None:
    with Ledger(path) as ledger:
        for number in range(start, start + 100_000):
            ledger.add(Entry(f"{number:016x}", identity=f"person-{number}"))
            pipe.send(number)


def test_ledger(ledger_path: Path) -> None:
    """What was acknowledged is there after every kill, and at most the one write that was under way."""
    chance = seeded("ledger")
    acknowledged: set[int] = set()
    end, kills = time.monotonic() + 2 * SECONDS, 0
    while time.monotonic() < end:
        receive, send = FORK.Pipe(duplex=False)
        process = FORK.Process(target=_write_entries, args=(ledger_path, 1_000_000 * kills, send))
        process.start()
        send.close()
        if chance.random() < 0.8:
            assert receive.poll(30)
        time.sleep(chance.uniform(0, 0.4))
        process.kill()
        process.join(30)
        assert process.exitcode == -9
        with_this = set[int]()
        while receive.poll():
            try:
                with_this.add(receive.recv())
            except (EOFError, OSError):
                break
        acknowledged |= with_this
        kills += 1
        with Ledger(ledger_path) as ledger:
            numbers = {int(entry.adapter_id, 16) for entry in ledger.entries()}
        assert acknowledged <= numbers
        assert len(numbers - acknowledged) <= 1
        acknowledged = numbers
    sys.stdout.write(f"{kills} kills; {len(acknowledged)} entries acknowledged\n")
    assert kills >= 10
    assert len(acknowledged) > 100


@pytest.mark.usefixtures("pauses")
def test_push(writer: LoopbackHub, pipe: Any, tmp_path: Path) -> None:
    """The repository holds the whole adapter or nothing of it."""
    folder = write_random(pipe, tmp_path / "adapter", 1, encoder=True).path
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    chance = seeded("push")
    begun = time.perf_counter()
    push(folder, REPO)
    seconds, kills = time.perf_counter() - begun, 0
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        writer.reset()
        writer.add_token("hf_averysecrettokenthatnobodymaysee", "tester", write=True)
        kills += killed_at_moment(partial(push, folder, REPO), tmp_path, chance.uniform(0, 1.1 * seconds))
        assert files_on_the_hub(writer) in (set(), names)
        push(folder, REPO)
        assert files_on_the_hub(writer) == names
    sys.stdout.write(f"{kills} kills\n")
    assert kills >= 3


def files_on_the_hub(writer: LoopbackHub) -> set[str]:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return set(HfApi().list_repo_files(REPO)) - {".gitattributes"}
    except RepositoryNotFoundError:
        return set()
