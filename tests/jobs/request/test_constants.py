"""Which settings are in force for a bank, and why."""

import logging

import pytest
import torch
from torch.nn.functional import normalize

from piu_lora.config import ForgetConfig
from piu_lora.identity import IdentityBank, RecognizerId
from piu_lora.identity.constants import CONSTANTS
from piu_lora.jobs.request.constants import in_force, settled
from piu_lora.jobs.request.request import open_request
from piu_lora.model import find_family
from tests.tiny import RECOGNIZER

WIDTH = 64


def people(count: int = 60, shots: int = 4, spread: float = 0.6) -> IdentityBank:
    generator = torch.Generator().manual_seed(0)
    centres = normalize(torch.randn(count, 1, WIDTH, generator=generator), dim=-1)
    across = normalize(torch.randn(count, shots, WIDTH, generator=generator), dim=-1)
    rows = normalize(centres + spread * across, dim=-1).flatten(0, 1)
    labels = torch.arange(count, dtype=torch.int32).repeat_interleave(shots)
    return IdentityBank(rows, labels, [f"p{number:03d}" for number in range(count)], RECOGNIZER)


def test_every_auto_becomes_a_number_of_the_bank() -> None:
    config = settled(ForgetConfig(), people(), 3)
    assert "auto" not in str(
        {name: config.to_dict()[name] for name in ("split", "anchor", "retain", "distil")}
    )
    assert settled(config, people(30), 1) is config


def test_a_profile_stands_in_by_its_name(caplog: pytest.LogCaptureFixture) -> None:
    settled(ForgetConfig(), people(30), 3)
    assert "the profile 'arcface-generic' stands in" in caplog.text


def test_where_values_are_from() -> None:
    config = ForgetConfig().updated_from_pairs(["split.same_person=0.66"])
    rows = {row.name: row for row in in_force(people(), config)}
    assert set(rows) == {*CONSTANTS, "double"}
    assert (rows["split.same_person"].value, rows["split.same_person"].origin) == (0.66, "set by hand")
    assert rows["faces.linked"].origin == "from the bank"
    assert {row.origin for row in in_force(people(30))} == {"from the profile"}


def test_the_embedded_bases_family_pins_its_published_values() -> None:
    bank = people()
    bank.recognizer = RecognizerId(find_family("mini").recognizer, "")
    rows = {row.name: (row.value, row.origin) for row in in_force(bank)}
    published = {
        "faces.linked": 0.6,
        "split.same_person": 0.85,
        "anchor.margin": 0.05,
        "anchor.band": 0.05,
        "retain.neighbour_low": 0.3,
        "retain.neighbour_high": 0.7,
        "distil.neighbour_low": 0.2,
        "distil.neighbour_high": 0.7,
        "distil.unseen_low": 0.85,
        "decoys.cosine": 0.5,
    }
    for name, value in published.items():
        assert rows[name] == (value, "the family's preset")


@pytest.mark.parametrize("ids", [1, 2])
def test_a_person_of_the_bank_under_other_ids_is_not_retained(
    ids: int, caplog: pytest.LogCaptureFixture
) -> None:
    bank = people(60, 8)
    # The second half of somebody's photographs stands under another id, or under two.
    rows, labels = bank.embeddings, bank.labels.clone()
    places = torch.arange(8 * 5 + 4, 8 * 6)
    for part, piece in enumerate(places.chunk(ids)):
        labels[piece] = 60 + part
    order = labels.argsort(stable=True)
    names = [*bank.ids, *(f"again{part}" for part in range(ids))]
    doubled = IdentityBank(rows[order], labels[order], names, RECOGNIZER)
    with caplog.at_level(logging.WARNING, "piu_lora"):
        request = open_request("p005", doubled, ForgetConfig().updated({"anchor": {"rule": "nearest"}}), None)
    assert request.left_out == tuple(range(60, 60 + ids))
    kept = {*request.retained.train, *request.retained.held_out}
    assert kept == set(range(60)) - {5}
    assert request.anchor_rows[0] in kept
    words = "another id" if ids == 1 else "2 other ids"
    assert f"in the bank under {words}" in caplog.text
    assert "again" not in caplog.text
    assert "p005" not in caplog.text
