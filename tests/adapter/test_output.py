import errno
from pathlib import Path

import pytest

from piu_lora.adapter import OutputFolder, disk_errors, write_file
from piu_lora.errors import BadInput, Busy, EnvironmentProblem


def fill(output: OutputFolder, text: str = "{}") -> None:
    with output.claimed(), output.staged() as folder:
        (folder / "forget.json").write_text(text)


def test_folder_appears_whole_and_leaves_nothing_else(tmp_path: Path) -> None:
    with OutputFolder(tmp_path / "out").claimed() as output, output.staged() as folder:
        (folder / "forget.json").write_text("{}")
        assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_failure_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with OutputFolder(tmp_path / "out").claimed() as output, output.staged() as folder:
            (folder / "half").write_text("x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_existing_folder_is_kept_without_force(tmp_path: Path) -> None:
    fill(OutputFolder(tmp_path / "out"), "old")
    with pytest.raises(BadInput, match="exists already"), OutputFolder(tmp_path / "out").claimed():
        pass
    fill(OutputFolder(tmp_path / "out", force=True), "new")
    assert (tmp_path / "out" / "forget.json").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_force_never_replaces_what_is_not_an_adapter(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with (
        pytest.raises(BadInput, match="holds no forget"),
        OutputFolder(tmp_path / "out", force=True).claimed(),
    ):
        pass
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years of work"


def test_two_runs_into_one_folder(tmp_path: Path) -> None:
    with (
        OutputFolder(tmp_path / "out").claimed(),
        pytest.raises(Busy, match="another run"),
        OutputFolder(tmp_path / "out").claimed(),
    ):
        pass


def test_full_disk_and_refusal_say_what_to_do() -> None:
    with pytest.raises(EnvironmentProblem, match="disk is full"), disk_errors("x"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(EnvironmentProblem, match="Permission denied; choose a folder"), disk_errors("x"):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_file_is_written_whole_with_its_mode(tmp_path: Path) -> None:
    write_file(tmp_path / "secret", b"x", mode=0o600)
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]
