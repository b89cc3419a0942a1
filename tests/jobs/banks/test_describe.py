"""What a bank holds, against plain NumPy; and what is wrong with it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from piu_lora.config import AnchorConfig
from piu_lora.identity import IdentityBank, RecognizerId, normalize
from piu_lora.identity.bank import FORMAT
from piu_lora.jobs.banks.describe import check_banks, describe_bank
from tests.tiny import RECOGNIZER, tiny_bank

WIDTH = 32


def uneven_bank() -> IdentityBank:
    """People with two to six photographs each, half precision, norms not quite one."""
    generator = torch.Generator().manual_seed(3)
    counts = [2 + person % 5 for person in range(30)]
    labels = torch.arange(30, dtype=torch.int32).repeat_interleave(torch.tensor(counts))
    centres = torch.randn(30, WIDTH, generator=generator)
    rows = (
        normalize(centres[labels.long()] + 0.5 * torch.randn(len(labels), WIDTH, generator=generator)) * 1.01
    )
    return IdentityBank(rows.half(), labels, [f"p{person}" for person in range(30)], RECOGNIZER, {"eps": 0.5})


def spread(values: Any) -> dict[str, float]:
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    return {"min": ordered[0], "median": ordered[(len(ordered) - 1) // 2], "max": ordered[-1]}


def close(values: Any) -> Any:
    return pytest.approx(spread(values), abs=2e-3)


# --- figures


def test_figures_are_those_of_plain_numpy() -> None:
    bank = uneven_bank()
    found = describe_bank(bank, AnchorConfig(tau=0.2, tolerance=0.05))
    rows, labels = bank.embeddings.float().numpy(), bank.labels.numpy()
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = units @ units.T
    upper, same = np.triu(np.ones_like(cosines, dtype=bool), 1), labels[:, None] == labels[None]
    facts = found.facts
    assert (facts["identities"], facts["embeddings"], facts["width"]) == (30, len(rows), WIDTH)
    assert facts["per_identity"] == close(np.bincount(labels))
    assert facts["norms"] == close(np.linalg.norm(rows, axis=1))
    assert facts["same_person"] == close(cosines[upper & same])
    assert facts["different_people"] == close(cosines[upper & ~same])
    assert np.allclose(np.sort(found.same.numpy()), np.sort(cosines[upper & same]), atol=1e-5)
    assert len(found.different) == (upper & ~same).sum()
    assert facts["digest"] == bank.digest
    assert (facts["recognizer"], facts["recognizer_sha256"]) == (RECOGNIZER.name, RECOGNIZER.sha256)
    assert facts["settings"] == {"eps": 0.5}
    assert facts["first_ids"] == ["p0", "p1", "p2", "p3", "p4"]


def test_anchors_in_the_band_are_counted_for_each_identity() -> None:
    bank = uneven_bank()
    facts = describe_bank(bank, AnchorConfig(tau=0.2, tolerance=0.05)).facts["anchors"]
    means = np.stack(
        [normalize(bank.embeddings[bank.labels == person]).numpy().mean(axis=0) for person in range(30)]
    )
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    near = (np.abs(means @ means.T - 0.2) < 0.05).sum(axis=1)
    assert facts["per_identity"] == spread(near)
    assert facts["share_without"] == pytest.approx((near == 0).mean())
    assert facts["band"] == "0.2 +- 0.05"


def test_a_bank_of_one_photograph_each_has_no_cosines_of_one_person() -> None:
    facts = describe_bank(tiny_bank(shots=1)).facts
    assert facts["same_person"] is None
    assert facts["different_people"]["min"] < 0 < facts["different_people"]["max"]


@pytest.mark.slow
def test_a_large_bank_still_shows_the_cosines_of_one_person(monkeypatch: pytest.MonkeyPatch) -> None:
    """More embeddings than are looked at: the sample must hold pairs of one person."""
    monkeypatch.setattr(
        "piu_lora.jobs.banks.describe._PAIRS", 1
    )  # anchors are not the point, and take a minute
    found = describe_bank(tiny_bank(identities=50_000, shots=2))
    assert found.facts["embeddings"] == 100_000
    assert found.facts["same_person"] is not None
    assert found.facts["same_person"]["median"] > found.facts["different_people"]["median"] + 0.5


# --- soundness


def damaged(path: Path, value: float) -> Path:
    bank = tiny_bank()
    embeddings = bank.embeddings.clone()
    embeddings[17] = value
    ids = torch.frombuffer(bytearray("\n".join(bank.ids).encode()), dtype=torch.uint8)
    header = {"format": FORMAT, "recognizer": RECOGNIZER.name, "recognizer_sha256": RECOGNIZER.sha256}
    save_file({"embeddings": embeddings, "labels": bank.labels, "ids": ids}, path, metadata=header)
    return path


def saved(path: Path, bank: IdentityBank | None = None) -> Path:
    (bank or tiny_bank()).save(path)
    return path


def apart() -> IdentityBank:
    """Six people on axes of their own."""
    rows = torch.eye(WIDTH)[:6].repeat_interleave(2, dim=0)
    rows[1::2, 10] = 0.1
    return IdentityBank(
        normalize(rows), torch.arange(6, dtype=torch.int32).repeat_interleave(2), list("abcdef"), RECOGNIZER
    )


def test_sound_banks_have_no_problems(tmp_path: Path) -> None:
    assert check_banks([saved(tmp_path / "a", apart()), saved(tmp_path / "b", apart())], 0.5) == []


@pytest.mark.parametrize(
    ("value", "what"),
    [(float("nan"), "holds NaN"), (float("inf"), "holds NaN or infinity"), (0.0, "zero vector")],
)
def test_rows_without_a_direction_are_found(tmp_path: Path, value: float, what: str) -> None:
    (problem,) = check_banks([damaged(tmp_path / "bank", value)], 1.0)
    assert what in problem
    assert "embedding 17 (identity 'person-002')" in problem


def test_the_file_with_the_problem_is_named(tmp_path: Path) -> None:
    (problem,) = check_banks([saved(tmp_path / "sound", apart()), damaged(tmp_path / "broken", 0.0)], 0.5)
    assert str(tmp_path / "broken") in problem


def test_damaged_and_missing_files_are_found_and_the_others_still_looked_at(tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole", tiny_bank())
    (tmp_path / "half").write_bytes(whole.read_bytes()[:900])
    (tmp_path / "text").write_text("no bank")
    problems = check_banks(
        [tmp_path / "half", tmp_path / "text", tmp_path / "nowhere", damaged(tmp_path / "zero", 0.0)], 0.5
    )
    assert len(problems) == 4
    for problem, name in zip(problems, ("half", "text", "nowhere"), strict=False):
        assert str(tmp_path / name) in problem


def test_banks_of_several_recognizers_are_found(tmp_path: Path) -> None:
    other = apart()
    other.recognizer = RecognizerId("w600k.onnx", "ab" * 32)
    problems = check_banks(
        [saved(tmp_path / "a", apart()), saved(tmp_path / "b", other), saved(tmp_path / "c", apart())], 0.5
    )
    assert len(problems) == 1
    for part in (
        str(tmp_path / "a"),
        str(tmp_path / "b"),
        "'tiny' (000000000000)",
        "'w600k.onnx' (abababababab)",
    ):
        assert part in problems[0]


def test_a_recognizer_without_a_digest_is_found(tmp_path: Path) -> None:
    bank = apart()
    bank.recognizer = RecognizerId("arcface.onnx", "")
    (problem,) = check_banks([saved(tmp_path / "a", bank)], 0.5)
    assert "the digest of its recognizer 'arcface.onnx' is unknown" in problem


def test_a_copied_recognizer_under_another_name_is_the_same(tmp_path: Path) -> None:
    """Digests decide wherever both are known, as they do when a bank meets a reader."""
    other = apart()
    other.recognizer = RecognizerId("renamed.onnx", RECOGNIZER.sha256)
    assert check_banks([saved(tmp_path / "a", apart()), saved(tmp_path / "b", other)], 0.5) == []


def test_identities_that_are_likely_one_person_are_found(tmp_path: Path) -> None:
    bank = apart()
    bank.embeddings[8:10] = normalize(bank.embeddings[2:4] + 0.3 * bank.embeddings[8:10])
    path = saved(tmp_path / "a", bank)
    (problem,) = check_banks([path], 0.5)
    assert "identities 'b' and 'e' lie at cosine 0.9" in problem
    assert check_banks([path], 0.999) == []
