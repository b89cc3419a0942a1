"""Writing: modes whatever the umask, names and links that could not be written, what kills leave behind."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from piu_lora.adapter.leftovers import find_leftovers, remove_leftover
from piu_lora.adapter.output import OutputFolder, refuse_existing
from piu_lora.errors import BadInput, EnvironmentProblem
from piu_lora.writing import PRIVATE, make_folder, replacing, write_file


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def aged(path: Path) -> Path:
    os.utime(path, (0, 0))
    return path


def test_modes_are_those_that_were_asked_for(tmp_path: Path, umask: int) -> None:
    make_folder(tmp_path / "a" / "b")
    write_file(tmp_path / "a" / "b" / "ordinary", b"x")
    write_file(tmp_path / "a" / "private", b"x", mode=PRIVATE)
    make_folder(tmp_path / "c" / "d", 0o700)
    assert [mode(tmp_path / name) for name in ("a", "a/b", "a/b/ordinary", "a/private", "c", "c/d")] == [
        0o755,
        0o755,
        0o644,
        0o600,
        0o755,
        0o700,
    ]


def test_nobody_reads_a_file_before_it_is_whole(tmp_path: Path, umask: int) -> None:
    with replacing(tmp_path / "x") as temporary:
        assert mode(temporary) & 0o077 == 0


def test_modes_of_an_adapter_folder(tmp_path: Path, umask: int) -> None:
    output = OutputFolder(tmp_path / "new" / "out", mark="README.md")
    with output.claimed(), output.staged() as folder:
        assert mode(folder) & 0o077 == 0
        (folder / "report").mkdir()
        for name in ("README.md", "report/loss.png", "report/before_after.png"):
            (folder / name).touch(mode=0o600)
    written = {path.relative_to(output.path).as_posix(): mode(path) for path in output.path.rglob("*")}
    assert written == {
        "README.md": 0o644,
        "report": 0o755,
        "report/loss.png": 0o644,
        "report/before_after.png": 0o600,
    }
    assert mode(output.path) == mode(output.path.parent) == 0o755


def test_a_dangling_link_and_a_long_name_are_refused_first(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nothing" / "here")
    with pytest.raises(BadInput, match=r"is a link to '.*nothing/here', which is not there"):
        refuse_existing(tmp_path / "link", force=True)
    with pytest.raises(BadInput, match="has 250 bytes, and at most 220"):
        refuse_existing(tmp_path / ("x" * 250), force=False)
    with pytest.raises(BadInput, match="has 300 bytes"):
        OutputFolder(tmp_path / ("é" * 150)).claimed().__enter__()
    refuse_existing(tmp_path / ("x" * 220), force=False)
    write_file(tmp_path / ("x" * 220), b"")
    with pytest.raises(EnvironmentProblem, match="the name is too long; choose a shorter one"):
        write_file(tmp_path / ("x" * 250), b"")


def test_the_folder_of_a_file_is_made_or_refused_first(tmp_path: Path) -> None:
    refuse_existing(tmp_path / "a" / "b" / "x.png", force=False)
    write_file(tmp_path / "a" / "b" / "x.png", b"")
    assert mode(tmp_path / "a") == 0o755
    with pytest.raises(EnvironmentProblem, match=r"cannot write .*x\.png' is a file; choose a folder"):
        refuse_existing(tmp_path / "a" / "b" / "x.png" / "c" / "d", force=False)


def test_the_next_run_removes_half_a_file(tmp_path: Path) -> None:
    dead, alive = dead_process(), os.getppid()
    for name in (f".bank.{dead}.tmp", f".bank.{alive}.tmp", f".other.{dead}.tmp", ".bank.notes.tmp"):
        (tmp_path / name).touch()
        aged(tmp_path / name)
    write_file(tmp_path / "bank", b"x")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"bank", f".bank.{alive}.tmp", f".other.{dead}.tmp", ".bank.notes.tmp"}


def test_a_file_written_from_another_machine_stays(tmp_path: Path) -> None:
    """Its process is none of this machine's, but it was written to a moment ago."""
    path = tmp_path / f".bank.{dead_process()}.tmp"
    path.touch()
    write_file(tmp_path / "bank", b"x")
    assert path.exists()


def test_killed_between_the_two_renames(tmp_path: Path) -> None:
    """``force`` puts the earlier folder aside and the new one in its place; the earlier one is never lost."""
    (tmp_path / ".out.replaced").mkdir()
    (tmp_path / ".out.replaced" / "forget.json").write_text("old")
    with pytest.raises(BadInput, match="exists already"), OutputFolder(tmp_path / "out").claimed():
        pass
    assert (tmp_path / "out" / "forget.json").read_text() == "old"
    output = OutputFolder(tmp_path / "out", force=True)
    with output.claimed(), output.staged() as folder:
        (folder / "forget.json").write_text("new")
    assert (tmp_path / "out" / "forget.json").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_leftovers_are_found_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = dead_process()
    scratch, work = tmp_path / "tmp", tmp_path / "work"
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(scratch))
    for folder in (scratch / f"piu-lora-{dead}-x", scratch / f"piu-lora-{os.getpid()}-x", scratch / "other"):
        folder.mkdir(parents=True)
    for folder in (".gone.partial", ".lost.replaced", ".here.replaced", "here", ".busy.partial"):
        (work / folder).mkdir(parents=True)
    for file in (".gone.lock", ".bank.checkpoint", ".bank.photos", ".bashrc", f".bank.{dead}.tmp"):
        aged_file = work / file
        aged_file.touch()
        aged(aged_file)
    with FileLock(work / ".busy.lock"):
        found = list(find_leftovers(work))
        assert {leftover.path.name for leftover in found} == {
            ".gone.partial",
            ".lost.replaced",
            ".here.replaced",
            ".gone.lock",
            f".bank.{dead}.tmp",
            f"piu-lora-{dead}-x",
        }
        for leftover in found:
            remove_leftover(leftover)
        assert not list(find_leftovers(work))
    left = {path.name for path in work.iterdir()} - {".busy.lock"}
    assert left == {"here", "lost", ".busy.partial", ".bank.checkpoint", ".bank.photos", ".bashrc"}


def test_what_a_run_went_on_from_goes_when_it_is_done(tmp_path: Path) -> None:
    """Killed after its last rename. An interrupted ``force`` is younger than what it was to replace."""
    for name in (".bank.photos", ".out.checkpoint", ".new.checkpoint", ".other.photos"):
        aged(write(tmp_path / name))
    write(tmp_path / "bank")
    write(tmp_path / "out" / "forget.json")
    aged(write(tmp_path / "new" / "forget.json"))
    write(tmp_path / ".new.checkpoint")
    assert {leftover.path.name for leftover in find_leftovers(tmp_path)} == {
        ".bank.photos",
        ".out.checkpoint",
    }


def write(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"")
    return path
