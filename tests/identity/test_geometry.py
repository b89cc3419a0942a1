"""The geometry of a bank against people whose geometry is known."""

import pytest
import torch
from torch.nn.functional import normalize

from piu_lora.errors import BadInput
from piu_lora.identity.geometry import LEVELS, variation
from piu_lora.identity.geometry_measurement import measure_geometry
from piu_lora.identity.profiles import GENERIC, geometry_of

WIDTH, SPREAD = 128, 0.6  # photographs: normalise(mu + 0.6 v) with unit v, so cos(e, mu) = 1 / sqrt(1.36)


def cone(
    people: int, shots: int, seed: int = 0, directions: int = WIDTH
) -> tuple[torch.Tensor, torch.Tensor]:
    """People whose photographs leave their centre by the same amount, in the first ``directions`` dimensions
    only.
    """
    generator = torch.Generator().manual_seed(seed)
    centres = normalize(torch.randn(people, 1, WIDTH, generator=generator), dim=-1)
    across = torch.zeros(people, shots, WIDTH)
    across[..., :directions] = torch.randn(people, shots, directions, generator=generator)
    rows = normalize(centres + SPREAD * normalize(across, dim=-1), dim=-1)
    return rows.flatten(0, 1), torch.arange(people).repeat_interleave(shots)


@pytest.mark.parametrize("k", [1, 3, 10])
def test_the_cosine_to_k_others_is_what_the_cone_says(k: int) -> None:
    """With mutually orthogonal deviations of length s: ``1 / sqrt((1 + s^2) (1 + s^2 / k))``."""
    geometry = measure_geometry(*cone(200, 12))
    spread = geometry.cosines[k]
    assert spread.mean == pytest.approx(1 / ((1 + SPREAD**2) * (1 + SPREAD**2 / k)) ** 0.5, abs=0.01)
    assert spread.mean_interval[0] <= spread.mean <= spread.mean_interval[1]
    assert spread.low_interval[0] - 0.01 <= spread.quantile(0.02) <= spread.low_interval[1] + 0.01
    assert spread.people == 200
    assert list(spread.quantiles) == sorted(spread.quantiles)
    assert len(spread.quantiles) == len(LEVELS)


def test_between_measured_numbers_of_photographs() -> None:
    geometry = measure_geometry(*cone(60, 12))
    assert geometry.reach(3).mean < geometry.reach(4).mean < geometry.reach(5).mean
    assert geometry.reach(50) == geometry.cosines[10]


def test_impostors_of_random_directions() -> None:
    """Cosines of random directions are normal with SD 1 / sqrt(d)."""
    geometry = measure_geometry(*cone(600, 2))
    assert geometry.far[1e-2] == pytest.approx(2.33 / WIDTH**0.5, abs=0.03)
    assert geometry.far[1e-2] < geometry.far[1e-3]
    assert 1e-5 not in geometry.far or 600 * 599 * 1e-5 >= 10


def test_directions_are_those_in_which_photographs_differ_and_nobodys() -> None:
    rows, labels = cone(80, 6, directions=8)
    geometry = measure_geometry(rows, labels)
    assert geometry.directions is not None
    assert torch.allclose(geometry.directions.norm(dim=1), torch.ones(len(geometry.directions)), atol=1e-5)
    assert float(geometry.directions[:, :8].square().sum(dim=1).mean()) > 0.8
    assert float((geometry.directions @ rows.T).amax()) < 0.9


def test_somebody_elses_photograph_does_not_count() -> None:
    rows, labels = cone(60, 8)
    planted = rows.clone()
    planted[::80] = rows[1:].roll(40, 0)[::80]  # six people get somebody else's
    clean, dirty = measure_geometry(rows, labels), measure_geometry(planted, labels)
    assert clean.doubtful == 0
    assert dirty.doubtful == pytest.approx(6 / 480, abs=0.005)
    assert dirty.cosines[3].quantile(0.02) == pytest.approx(clean.cosines[3].quantile(0.02), abs=0.05)


def test_the_sampler_draws_the_cosines_it_says() -> None:
    rows, labels = cone(100, 12)
    geometry = measure_geometry(rows, labels)
    known = rows[:3]
    drawn = variation(known, geometry, 4000, torch.Generator().manual_seed(0))
    cosines = drawn @ normalize(known.mean(dim=0), dim=0)
    assert torch.allclose(drawn.norm(dim=1), torch.ones(4000), atol=1e-5)
    for level in (0.02, 0.5, 0.98):
        assert float(cosines.quantile(level)) == pytest.approx(geometry.reach(3).quantile(level), abs=0.01)
    again = variation(known, geometry, 4000, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, again)


def test_a_small_bank_gets_the_profile_by_its_name() -> None:
    assert geometry_of(*cone(20, 4)).name == "arcface-generic"
    assert geometry_of(*cone(60, 4)).name == "measured"
    assert geometry_of(*cone(20, 4), enough=10).name == "measured"
    assert GENERIC.directions is None
    with pytest.raises(BadInput, match="two photographs"):
        measure_geometry(*cone(20, 1))
    drawn = variation(normalize(torch.randn(1, 512), dim=1), GENERIC, 2000, torch.Generator().manual_seed(0))
    assert drawn.shape == (2000, 512)
    assert set(GENERIC.to_dict()) == {
        "name",
        "people",
        "photographs",
        "doubtful",
        "far",
        "impostors",
        "cosines",
    }
