"""The Space that can be pushed: it lists what the project needs, and starts."""

import sys
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPACE = ROOT / "examples" / "space"


def test_it_lists_what_the_project_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needs = [*project["dependencies"], *project["optional-dependencies"]["studio"]]
    assert (SPACE / "requirements.txt").read_text().splitlines() == needs


@pytest.mark.slow
@pytest.mark.alone
def test_it_starts_and_closes_what_lies_on_its_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gradio", reason="no Gradio here (pip install '.[studio]')")
    from tests.studio.browser import running

    monkeypatch.setenv("GRADIO_SERVER_PORT", "0")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with running(tmp_path, sys.executable, str(SPACE / "app.py")) as space:
        address = space.address.replace("0.0.0.0", "127.0.0.1")
        with urllib.request.urlopen(address) as page:
            assert "SameSite=None; Secure; Partitioned" in page.headers["set-cookie"]
            assert "piu-lora studio" in page.read().decode()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(address + "gradio_api/file=/etc/hostname")
    assert space.folders == []
