"""Browsers kept apart, and nothing left behind."""

from pathlib import Path

import pytest

from piu_lora.adapter.leftovers import find_leftovers
from piu_lora.errors import BadInput
from piu_lora.studio.methods import MethodTimes
from piu_lora.studio.server import StudioSettings
from piu_lora.studio.visitors import Visitors, private_folder

ONE, OTHER = "a" * 32, "b" * 32


def test_everybody_has_a_private_folder_that_goes(tmp_path: Path) -> None:
    with private_folder() as root:
        visitors = Visitors(root)
        one, other = visitors.get(ONE), visitors.get(OTHER)
        assert visitors.get(ONE) is one
        assert one.folder != other.folder
        assert {path.stat().st_mode & 0o777 for path in (root, one.folder)} == {0o700}
        (one.folder / "face.png").write_bytes(b"x")
        visitors.remove(one)
        assert not one.folder.exists()
        assert other.folder.exists()
    assert not root.exists()


def test_what_a_killed_studio_leaves_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with private_folder() as alive:
        assert list(find_leftovers(tmp_path / "none")) == []
    monkeypatch.setattr("os.getpid", lambda: 2**22 + 1)  # beyond the last that Linux gives
    with private_folder() as dead:
        assert [leftover.path for leftover in find_leftovers(tmp_path / "none")] == [dead]
    assert not alive.exists()


def test_a_key_that_was_not_given_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cookie"):
        Visitors(tmp_path).get("../etc")
    assert Visitors(tmp_path).known(ONE) is None


def test_other_machines_are_let_in_by_a_password_alone() -> None:
    with pytest.raises(BadInput, match="auth=USER:PASSWORD"):
        StudioSettings(host="0.0.0.0")
    with pytest.raises(BadInput, match="USER:PASSWORD"):
        StudioSettings(auth="ann")
    assert StudioSettings(host="0.0.0.0", auth="ann:secret").port == 7860


def test_expected_seconds_are_those_seen_here_where_there_are_any() -> None:
    times = MethodTimes("mini")
    assert times.words("piu") == "about 73 s"
    times.took("piu", 40.2)
    assert times.words("piu") == "40 s here"
    assert MethodTimes("arc2face").words("piu") == ""
