from collections.abc import Callable

import pytest
import torch

from piu_lora.model.mini.render import (
    IDENTITY,
    NUISANCE,
    SIZE,
    render,
    sample_identities,
    sample_nuisance,
    surface,
)


def draw(identity: torch.Tensor, nuisance: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return render(identity, nuisance, torch.Generator().manual_seed(seed)).float()


@pytest.fixture(scope="module")
def people() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return sample_identities(6, generator), sample_nuisance(6, generator)


def test_shape_and_determinism(people: tuple[torch.Tensor, torch.Tensor]) -> None:
    first, second = draw(*people), draw(*people)
    assert first.shape == (6, 3, SIZE, SIZE)
    assert torch.equal(first, second)
    assert first.std() > 20


def test_a_batch_is_its_pictures_one_by_one(people: tuple[torch.Tensor, torch.Tensor]) -> None:
    who, how = people
    how = how.clone()
    how[:, [i for i, p in enumerate(NUISANCE) if p.name == "noise"]] = 0
    together = draw(who, how)
    for row in range(len(who)):
        # One grey level: sums in another order may round differently.
        assert (together[row] - draw(who[row : row + 1], how[row : row + 1])[0]).abs().max() <= 1


def moved(units: torch.Tensor, column: int, value: float) -> torch.Tensor:
    units = units.clone()
    units[:, column] = value
    return units


def largest_change(picture: Callable[[float], torch.Tensor]) -> float:
    """Between either end and a place off the middle: hues and phases meet themselves at their ends."""
    middle = picture(0.42)
    return max(float((picture(end) - middle).abs().amax()) for end in (0.0, 1.0))


@pytest.mark.slow
@pytest.mark.parametrize("name", [p.name for p in IDENTITY])
def test_every_identity_parameter_is_seen(name: str) -> None:
    """Moving it changes the picture of somebody, others fixed (features that others need are switched on)."""
    index = {p.name: i for i, p in enumerate(IDENTITY)}
    who = torch.full((3, len(IDENTITY)), 0.5)
    who[1] = 0.8
    who[2] = 0.95
    for feature in ("glasses", "mole", "freckles", "age"):
        who[1:, index[feature]] = 1.0
    who[0, index["hair_length"]] = 0.0  # ears
    how = torch.full((3, len(NUISANCE)), 0.5)
    assert largest_change(lambda value: draw(moved(who, index[name], value), how)) > 8


@pytest.mark.slow
@pytest.mark.parametrize("name", [p.name for p in NUISANCE])
def test_every_nuisance_parameter_is_seen(name: str) -> None:
    index = [p.name for p in NUISANCE].index(name)
    who = torch.full((1, len(IDENTITY)), 0.5)
    how = torch.full((1, len(NUISANCE)), 0.6)
    assert largest_change(lambda value: draw(who, moved(how, index, value))) > 2


def test_size_is_free(people: tuple[torch.Tensor, torch.Tensor]) -> None:
    who, how = people
    small = render(who, how, torch.Generator().manual_seed(0), size=48)
    assert small.shape == (6, 3, 48, 48)


def test_wrong_width_is_refused() -> None:
    with pytest.raises(ValueError, match="expected parameters of shape"):
        draw(torch.zeros(1, 3), torch.zeros(1, len(NUISANCE)))


def test_a_surface_shows_the_pose_and_nothing_beside_the_head() -> None:
    """Turned to the other side, the first coordinate changes; the corners of the picture stay empty."""
    nuisance = torch.full((2, len(NUISANCE)), 0.5)
    nuisance[:, [parameter.name for parameter in NUISANCE].index("yaw")] = torch.tensor([0.0, 1.0])
    maps = surface(torch.full((2, len(IDENTITY)), 0.5), nuisance)
    assert maps.shape == (2, 3, SIZE, SIZE)
    assert 0 <= maps.min() < maps.max() <= 1
    assert not maps[:, :, :4, :4].any()
    middle = maps[:, :, SIZE // 2, SIZE // 2]
    assert middle[0, 0] > middle[1, 0] + 0.05
    assert torch.allclose(middle[0, 1:], middle[1, 1:], atol=1e-4)
