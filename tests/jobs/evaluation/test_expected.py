"""What is predicted for photographs that nobody gave."""

import pytest
import torch
from torch.nn.functional import normalize

from piu_lora.evidence.report.sections import Expected
from piu_lora.evidence.statistics import share_interval
from piu_lora.identity.geometry import imagined_people
from piu_lora.identity.profiles import GENERIC
from piu_lora.jobs.evaluation.expected import expected_words


@pytest.mark.parametrize("count", [1, 3])
def test_imagined_photographs_lie_where_real_ones_do(count: int) -> None:
    """With the known centroid as photographs of that k do, and with their own as those of many do."""
    generator = torch.Generator().manual_seed(0)
    known = normalize(torch.randn(1, 512, generator=generator), dim=1).expand(count, -1)
    centres, photographs = imagined_people(known, GENERIC, 400, 5, generator)
    assert photographs.shape == (400, 5, 512)
    assert torch.allclose(photographs.norm(dim=-1), torch.ones(400, 5), atol=1e-4)
    own = (photographs * centres[:, None]).sum(dim=-1)
    assert float(own.mean()) == pytest.approx(GENERIC.cosines[10].mean, abs=0.02)
    reached = float((photographs @ known[0]).mean())
    assert reached == pytest.approx(GENERIC.reach(count).mean, abs=0.05)


def test_wilson_against_its_worked_example() -> None:
    """Brown, Cai and DasGupta (2001): none of 10 is [0, 0.278]."""
    low, high = share_interval(0, 10)
    assert (low, high) == pytest.approx((0.0, 0.2775), abs=1e-3)
    assert share_interval(10, 10)[1] == 1


def test_in_words() -> None:
    expected = Expected(
        share=0.08, low=0.03, high=0.15, photographs=1, images=48, far=1e-3, geometry="measured"
    )
    text = expected_words(expected)
    assert text.startswith("1 photograph was given")
    assert text.endswith("8 % [3, 15]")
    named = expected_words(expected.model_copy(update={"geometry": "arcface-generic", "photographs": 2}))
    assert "by the profile 'arcface-generic'" in named
