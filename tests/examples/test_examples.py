"""Every example runs; stock diffusers reproduces our picture to the pixel."""

import ast
import contextlib
import io
import runpy
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from piu_lora import generate, load_adapter, load_base
from piu_lora.evidence.picture import to_image
from piu_lora.model import mini

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
TRAINED = ["method=piu", "train.steps=2", "train.batch=2", "train.accumulation=1"]
SHORT = [
    "evaluation.forget_images=2",
    "evaluation.retain_images=2",
    "evaluation.nearest=1",
    "evaluation.anchor_images=1",
    "evaluation.steps=4",
]


def run(name: str, *arguments: object) -> str:
    """What the script prints, run in this process: importing the libraries anew costs seconds each time."""
    out, line = io.StringIO(), [str(EXAMPLES / name), *map(str, arguments)]
    with mock.patch.object(sys, "argv", line), contextlib.redirect_stdout(out):
        runpy.run_path(line[0], run_name="__main__")
    return out.getvalue()


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("quickstart") / "adapter"
    printed = run("quickstart.py", out, *TRAINED, *SHORT)
    assert "forget   ISM" in printed
    return out


def test_quickstart_leaves_an_adapter_and_a_picture(adapter: Path) -> None:
    assert (adapter / "pytorch_lora_weights.safetensors").exists()
    assert Image.open(adapter / "report" / "before_after.png").width > 500


@pytest.mark.slow
def test_stock_diffusers_reproduces_our_picture_to_the_pixel(adapter: Path, tmp_path: Path) -> None:
    script = (EXAMPLES / "stock_diffusers.py").read_text()
    imported = {
        n.names[0].name if isinstance(n, ast.Import) else n.module
        for n in ast.walk(ast.parse(script))
        if isinstance(n, ast.Import | ast.ImportFrom)
    }
    assert imported <= {"sys", "numpy", "torch", "diffusers"}

    embedding = mini.conditioning_bank().of("mini-0007")[0]
    np.save(tmp_path / "embedding.npy", embedding.numpy())
    line = [
        sys.executable,
        EXAMPLES / "stock_diffusers.py",
        mini.folder(),
        adapter,
        tmp_path / "embedding.npy",
        tmp_path / "stock.png",
    ]
    done = subprocess.run(
        line, capture_output=True, text=True, timeout=300, check=False
    )  # where nothing of ours is imported
    assert done.returncode == 0, done.stderr

    pipe = load_base("mini", device="cpu")
    load_adapter(pipe, adapter)
    ours = to_image(generate(pipe, embedding[None], [0], steps=15, guidance=3.0)[0], 96)
    assert np.array_equal(np.asarray(ours), np.asarray(Image.open(tmp_path / "stock.png")))


def test_stacking_and_merging(tmp_path: Path) -> None:
    printed = run("stack_adapters.py", tmp_path / "merged")
    assert "active:" in printed
    assert (tmp_path / "merged" / "forget.json").exists()


@pytest.mark.slow
def test_evidence(tmp_path: Path) -> None:
    lean = [*SHORT, "report.leak_images=8", "report.sweep_images=0", "audit.steps=3", "audit.cone_images=2"]
    lean += ["audit.cone_cosines=[1.0, 0.5]", "audit.cone_shares=[0.5]", "audit.reidentify_random=1"]
    printed = run("evidence.py", tmp_path / "out", *lean)
    assert "reidentify: the forgotten person stands at rank" in printed
    assert "passed:" in printed
    assert (tmp_path / "out" / "report" / "report.html").stat().st_size > 50_000
