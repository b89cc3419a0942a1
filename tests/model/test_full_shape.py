"""A full-shape Arc2Face with random weights, from the loopback Hub by the ordinary path; minutes, and 9 GB of
disk.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.arc2face import FULL, serve_arc2face
from tests.hub import LoopbackHub


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(2400)
def test_the_real_shape_loads_trains_saves_and_draws(
    hub: LoopbackHub, hub_cache: Path, tmp_path: Path
) -> None:
    if shutil.disk_usage(tmp_path).free < 15e9:
        pytest.skip("less than 15 GB free: the weights are written twice, by the Hub and by its cache")
    try:
        serve_arc2face(hub, tmp_path / "hub", FULL)
        command = [sys.executable, "-m", "tests.full_shape", str(tmp_path)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        facts = json.loads(done.stdout.splitlines()[-1])
    finally:
        shutil.rmtree(tmp_path / "hub", ignore_errors=True)
        shutil.rmtree(hub_cache, ignore_errors=True)
    print(facts["seconds"], f"peak {facts['peak_gb']} GB")  # noqa: T201
    assert facts["unet"] == 859_520_964
    assert facts["encoder"] == 123_060_480
    assert facts["trained"] == 16 * 71_424
    assert facts["moved"] > 0
    assert facts["file"] < 2.4e6
    assert facts["size"] == [3, 512, 512]
    assert facts["peak_gb"] < 16
    with Image.open(tmp_path / "image.png") as picture:
        assert len(set(picture.getdata())) > 100
