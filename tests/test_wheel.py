"""The wheel that the sdist builds works outside the checkout, in an environment of its own."""

import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_wheel_forgets_outside_the_checkout(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--sdist", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert packed >= {
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        "mkdocs.yml",
        "docs/index.md",
        "benchmarks/tables.py",
    }
    # From the sdist and not the checkout: what the sdist lacks, the wheel lacks.
    wheel_of = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(sdist)]
    subprocess.run(wheel_of, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.endswith("weights/base/model_index.json") for name in names)
    assert not any(name.startswith(("tests/", "benchmarks/", "docs/")) for name in names)
    venv.create(tmp_path / "env", with_pip=True)
    binaries = tmp_path / "env" / "bin"
    subprocess.run([binaries / "pip", "install", "-q", "--no-compile", str(wheel)], check=True)
    command = [
        binaries / "piu-lora",
        "forget",
        "--identity",
        "mini-0007",
        "--out",
        "adapter",
        "--no-evaluate",
    ]
    subprocess.run(command, check=True, cwd=tmp_path)
    assert (tmp_path / "adapter" / "forget.json").exists()
