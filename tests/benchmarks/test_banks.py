"""Both benchmarks of banks, in miniature."""

from pathlib import Path

import pytest
import torch

from benchmarks import anchor_search, bank_build
from piu_lora.identity import IdentityBank
from tests.photos import PACK, PORTRAITS, needs_faces


@needs_faces
@pytest.mark.slow
def test_bank_build_times_all_loops_over_the_same_photographs(tmp_path: Path) -> None:
    for number, folder in enumerate(sorted(PORTRAITS.iterdir())[:2]):
        (tmp_path / str(number)).mkdir()
        for year in (2014, 2024):
            (tmp_path / str(number) / f"{year}.jpg").symlink_to(folder / f"{year}.jpg")
    result = bank_build.measure(tmp_path, PACK, rounds=1, workers=2)
    assert result["photos"] == 4
    assert result["faces"] == {"plain": 4, "tuned": 4, "build": 4}
    assert all(len(seconds) == 1 and seconds[0] > 0 for seconds in result["seconds"].values())
    assert str(tmp_path) not in str(result)
    assert all(folder.name not in str(result) for folder in PORTRAITS.iterdir())


def test_bank_build_shows_the_median_ratio() -> None:
    seconds = {"plain": [20.0, 30.0, 90.0], "tuned": [10.0, 20.0, 20.0], "build": [10.0, 10.0, 10.0]}
    result = {
        "photos": 100,
        "faces": dict.fromkeys(seconds, 99),
        "seconds": seconds,
        "settings": {"cores": 2},
    }
    lines = bank_build.table(result).splitlines()
    assert lines[0].startswith("| 100 photographs, 2 cores |")
    assert lines[2] == "| plain insightface loop | 99 | 3.3 | 3.00 (2.00 to 9.00) |"
    assert lines[4] == "| piu-lora bank build | 99 | 10.0 | 1 |"


def test_synthetic_bank_has_the_geometry_of_real_faces(tmp_path: Path) -> None:
    """Measured on real faces: mean cosine 0.025, SD 0.071, next to nobody without an anchor within 0.2 +-
    0.05.
    """
    anchor_search.write_bank(tmp_path / "bank.safetensors", 3000)
    bank = IdentityBank.load(tmp_path / "bank.safetensors")
    assert bank.embeddings.dtype == torch.float16
    cosines = (bank.centroids @ bank.centroids.T)[~torch.eye(3000, dtype=torch.bool)]
    assert float(cosines.mean()) == pytest.approx(0.022, abs=0.006)
    assert float(cosines.std()) == pytest.approx(0.071, abs=0.01)


@pytest.mark.slow
def test_anchor_search_measures_both_ways_in_processes_of_their_own(tmp_path: Path) -> None:
    anchor_search.write_bank(tmp_path / "bank.safetensors", 20_000)
    ways = anchor_search.measure(tmp_path / "bank.safetensors", threads=1, rounds=2)
    assert list(ways) == ["choose_anchor", "float32 copy"]
    for found in ways.values():
        assert len(found["seconds"]) == 2
    assert abs(ways["choose_anchor"]["cosine"] - 0.2) < 0.05
    assert ways["float32 copy"]["peak"] >= 20_000 * 512 * 4 * 0.9
    assert ways["choose_anchor"]["peak"] < 20_000 * 512 * 4 / 2  # far from a copy
    settings = {"identities": 20_000, "threads": 1}
    text = anchor_search.table({"ways": ways, "bank_bytes": 20_000_000, "settings": settings})
    assert "20,000 people, 1 threads" in text
