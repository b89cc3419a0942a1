"""The lowest versions that pyproject.toml allows: the main job and a few fast tests pass on them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
# Large, and no part of the question: torch comes from this environment, whatever pyproject.toml allows.
SHARED = ("torch", "nvidia", "triton", "cuda")
FAST = (
    "tests/test_config.py",
    "tests/test_foreign.py",
    "tests/cli/test_output.py",
    "tests/adapter/test_folder.py",
)


def uv(*arguments: object) -> None:
    cache = Path(os.environ.get("PIU_LORA_CI_CACHE", ROOT / ".ci-cache")) / "uv"
    line = [sys.executable, "-m", "uv", "--quiet", "--cache-dir", str(cache), *map(str, arguments)]
    subprocess.run(line, check=True, timeout=900)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with the lowest versions."""
    folder = tmp_path_factory.mktemp("lowest")
    environment, wanted = folder / "env", folder / "wanted.txt"
    uv("venv", "--python", sys.executable, environment)
    python = environment / "bin" / "python"
    options = ("--resolution", "lowest-direct", "--no-annotate", "--no-header", "--python", python)
    uv("pip", "compile", ROOT / "pyproject.toml", "--extra", "dev", *options, "-o", wanted)
    lines = [line for line in wanted.read_text().splitlines() if not line.startswith(SHARED)]
    wanted.write_text("\n".join(lines))
    uv("pip", "install", "--no-deps", "--python", python, "-r", wanted)
    (packages,) = environment.glob("lib/python*/site-packages")
    shared = Path(torch.__file__).parent.parent
    for name in ("torch*", "functorch", "nvidia*", "triton*", "cuda*"):
        for path in shared.glob(name):
            (packages / path.name).symlink_to(path)
    return python


def run(python: Path, *arguments: object) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        [python, *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    return finished.stdout


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_main_job_and_the_fast_tests(python: Path, tmp_path: Path) -> None:
    assert "forget" in run(python, "-m", "piu_lora", "--help")
    lean = ("--method", "piu", "--set", "train.steps=2", "--set", "train.batch=2", "--no-evaluate")
    run(python, "-m", "piu_lora", "forget", "--identity", "mini-0007", "--out", tmp_path / "out", *lean)
    assert (tmp_path / "out" / "forget.json").exists()
    assert " passed" in run(python, "-m", "pytest", "-n", "2", *FAST)
