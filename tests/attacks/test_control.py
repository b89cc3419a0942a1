import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from piu_lora.attacks import choose_control, made_up_identity, random_change
from piu_lora.errors import BadInput
from piu_lora.identity import IdentityBank
from tests.adapter import stacks


def test_a_random_change_has_the_same_layers_ranks_and_norms(pipe: StableDiffusionPipeline) -> None:
    change = stacks.random_change(pipe, 1, encoder=True)
    drawn, again = (random_change(change, torch.Generator().manual_seed(5)) for _ in range(2))
    assert drawn.keys() == change.keys()
    for module, own in change.items():
        dense = drawn[module].dense()
        assert np.linalg.matrix_rank(dense.numpy()) == own.rank
        assert np.linalg.norm(dense.numpy()) == pytest.approx(np.linalg.norm(own.dense().numpy()), rel=1e-5)
        assert torch.equal(dense, again[module].dense())
        cosine = float((dense * own.dense()).sum() / dense.norm() / own.dense().norm())
        assert abs(cosine) < 0.5


def test_the_control_is_like_nobody_of_the_request(bank: IdentityBank) -> None:
    away, candidates = bank.centroids[[0, 1]], list(range(5, 40))
    closest = (bank.centroids[candidates] @ away.T).abs().amax(dim=1)
    limit = float(closest.median())
    drawn = {
        choose_control(bank, candidates, away, torch.Generator().manual_seed(seed), limit)
        for seed in range(40)
    }
    assert drawn <= {row for row, each in zip(candidates, closest.tolist(), strict=True) if each < limit}
    assert len(drawn) > 3
    # Nobody is that far away: the farthest.
    assert choose_control(bank, candidates, away, torch.Generator(), 0.0) == candidates[int(closest.argmin())]
    with pytest.raises(BadInput, match="nobody of the bank is left"):
        choose_control(bank, [], away, torch.Generator())


def test_made_up_identities_have_the_mean_and_the_covariance_of_the_bank() -> None:
    """Of many draws with a single candidate each, against numpy; the bank is stretched along one axis and has
    a mean.
    """
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([1.0, 0.2, 0.2, 0.2])
    rows = torch.nn.functional.normalize(
        torch.randn(300, 4, generator=generator) * scale + torch.tensor([0.0, 1.0, 0.0, 0.0]), dim=1
    )
    bank = IdentityBank(rows, torch.arange(300, dtype=torch.int32), [f"p{i}" for i in range(300)], None)  # type: ignore[arg-type]
    away = torch.eye(4)[3:]
    drawn = torch.stack([made_up_identity(bank, away, generator, draws=1) for _ in range(1500)])
    assert torch.allclose(drawn.norm(dim=1), torch.ones(1500), atol=1e-5)
    assert np.allclose(drawn.mean(dim=0), rows.mean(dim=0), atol=0.06)
    spread = np.cov(drawn.numpy().T), np.cov(rows.numpy().T)
    assert np.allclose(np.linalg.eigvalsh(spread[0])[-1], np.linalg.eigvalsh(spread[1])[-1], rtol=0.25)


def test_a_made_up_identity_resembles_nobody_named(bank: IdentityBank) -> None:
    away = bank.centroids[:1]
    drawn = made_up_identity(bank, away, torch.Generator().manual_seed(0))
    assert abs(float(drawn @ away[0])) < 0.05
    assert torch.equal(drawn, made_up_identity(bank, away, torch.Generator().manual_seed(0)))
