"""How forget conditions are drawn."""

import pytest
import torch
from torch.nn.functional import normalize

from piu_lora.errors import BadInput
from piu_lora.identity import centroid, dirichlet_mixtures
from piu_lora.identity.geometry import variation
from piu_lora.identity.profiles import GENERIC
from piu_lora.unlearn.forget_conditions import FORGET_CONDITIONS, find_draw


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


KNOWN = normalize(torch.randn(3, 16, generator=torch.Generator().manual_seed(0)))


def drawn(name: str, count: int = 7) -> torch.Tensor:
    return find_draw(name)(KNOWN, lambda: GENERIC, count, seeded())


@pytest.mark.parametrize("name", sorted(FORGET_CONDITIONS))
def test_unit_rows_and_as_many_as_asked_for(name: str) -> None:
    for count in (2, 7):
        rows = drawn(name, count)
        assert rows.shape == (count, 16)
        assert torch.allclose(rows.norm(dim=1), torch.ones(count), atol=1e-5)
    assert torch.equal(drawn(name), drawn(name))


def test_each_is_what_it_says() -> None:
    assert torch.equal(drawn("mixtures"), dirichlet_mixtures(KNOWN, 7, seeded()))
    counts = (drawn("individual")[:, None] == KNOWN).all(dim=2).sum(dim=0)
    assert sorted(counts.tolist()) == [2, 2, 3]
    assert torch.equal(drawn("centroid"), centroid(KNOWN).expand(7, -1))
    assert torch.equal(drawn("variation"), torch.cat([KNOWN, variation(KNOWN, GENERIC, 4, seeded())]))


def test_an_unknown_one() -> None:
    with pytest.raises(BadInput, match=r"'cones'; known: centroid, individual, mixtures, variation"):
        find_draw("cones")
