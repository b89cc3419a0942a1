"""What contenders make, at every strength, kept in a file and read again; on the embedded base."""

from pathlib import Path

import pytest
import torch

from piu_lora.errors import BadInput
from piu_lora.evidence.images import figures_of_images
from piu_lora.jobs.arena.artefact import open_artefact
from piu_lora.jobs.arena.cells import CellStore
from piu_lora.jobs.arena.compare import compare, same_settings
from piu_lora.jobs.arena.comparison import Comparison
from piu_lora.jobs.arena.contender import Contender
from piu_lora.jobs.arena.difference import changed_tensors, with_difference
from piu_lora.jobs.arena.making import Maker
from piu_lora.jobs.request.request import open_request
from piu_lora.jobs.request.session import Session, open_session
from piu_lora.model import encode_embeddings, find_family
from tests.jobs.arena.test_compare import SMALL, config

WHO = "mini-0007"


@pytest.fixture(scope="module")
def session() -> Session:
    return open_session("mini", device="cpu")


@pytest.fixture
def maker(session: Session) -> Maker:
    return Maker(session, open_request(WHO, session.bank, config(), session.reader), sweep=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("swept") / "out"


@pytest.fixture(scope="module")
def swept(folder: Path) -> Comparison:
    return compare(folder, ["ume"], people=1, seeds=1, config=config(), sweep=True, keep=True)


def test_a_dial_draws_a_curve(swept: Comparison, folder: Path) -> None:
    variants = [row.variant for row in swept.rows[::2]]
    assert variants == ["ume", *(f"ume weight={value}" for value in ("0.25", "0.5", "0.65", "0.8", "1.25"))]
    forgot = {row.variant: row.figures["forget"][0] for row in swept.rows if row.recognizer == "evaluating"}
    assert forgot["ume weight=0.25"] > forgot["ume weight=0.5"] > forgot["ume weight=0.8"]
    assert {cell.seconds for cell in swept.cells} == {swept.cells[0].seconds}  # made once
    assert "At equal forgetting" in swept.text
    assert (folder / "comparison-curves.png").exists()


def test_the_tables_follow_from_the_cosines_of_images(swept: Comparison, folder: Path) -> None:
    for cell in CellStore(folder).all():
        for recognizer, figures in cell.figures.items():
            for name, value in figures_of_images(cell.images[recognizer]).items():
                assert value == pytest.approx(figures[name], abs=2e-3)


def test_a_kept_artefact_is_what_was_made(swept: Comparison, folder: Path, session: Session) -> None:
    (path,) = (folder / "artefacts").iterdir()  # strengths of one method share a file
    artefact = open_artefact(path)
    assert (artefact.variant, artefact.person, artefact.component) == ("ume", 0, "text_encoder")
    pipe = with_difference(session.pipe, artefact.component, artefact.difference)
    rows = session.bank.of(WHO)[:1]
    with torch.no_grad():
        before, after = (
            encode_embeddings(owner.text_encoder, owner.tokenizer, rows) for owner in (session.pipe, pipe)
        )
    assert not torch.equal(before, after)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(BadInput, match=r"cannot be read: .*; run its cell again with --keep"):
        open_artefact(path)


def test_a_weight_scales_an_adapter(maker: Maker, session: Session) -> None:
    pairs = tuple(f"closed.{key}={value}" for key, value in SMALL["closed"].items())
    rows, outputs = session.bank.of(WHO)[:1], []
    for weight in ("0", "0.5", "1"):
        with maker.carried(Contender("closed-kv", (*pairs, f"weight={weight}"))) as pipe:
            layer = pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_k
            with torch.no_grad():
                outputs.append(layer(encode_embeddings(pipe.text_encoder, pipe.tokenizer, rows)))
    none, half, whole = outputs
    assert not torch.allclose(none, whole)
    assert torch.allclose(half, (none + whole) / 2, atol=1e-4)
    with pytest.raises(BadInput, match="weight = 'much' is not a number"):
        Contender("closed-kv", ("weight=much",)).settings(config(), find_family("mini"))


def test_shorter_trainings_are_snapshots_of_one(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual length here is 4 steps; half of it is seen on the way."""
    monkeypatch.setitem(find_family("mini").baselines, "esd", {"steps": 4, "lr": 1e-4})
    whole, half = maker.make(Contender("esd")), maker.make(Contender("esd", ("steps=2",)))
    assert maker.make(Contender("esd")) is whole
    alone = Maker(maker._session, maker._request).make(Contender("esd", ("steps=2",)))
    assert half.difference.keys() == alone.difference.keys()
    assert all(torch.equal(half.difference[name], value) for name, value in alone.difference.items())
    assert half.seconds < whole.seconds


def test_what_differs() -> None:
    before = {"a": torch.zeros(2), "b": torch.ones(2)}
    changed = changed_tensors(before, {"a": torch.ones(2), "b": torch.ones(2), "c": torch.ones(1)})
    assert {name: value.tolist() for name, value in changed.items()} == {"a": [1, 1], "c": [1]}


def test_settings_that_came_after_a_cell_are_as_they_were() -> None:
    plain = {"a": 1, "new": 0, "part": {"b": 2, "later": "no"}}
    now = {"a": 3, "new": 0, "part": {"b": 2, "later": "no"}}
    assert same_settings({"a": 3, "part": {"b": 2}}, now, plain)
    assert not same_settings({"a": 3, "part": {"b": 2}}, {**now, "new": 1}, plain)
    assert not same_settings({"a": 3, "part": {"b": 2}}, {**now, "part": {"b": 2, "later": "yes"}}, plain)
    assert not same_settings({"a": 3, "part": {"b": 5}}, now, plain)
    assert not same_settings({"a": 3, "gone": 1, "part": {"b": 2}}, now, plain)
    assert not same_settings({"a": 3, "part": 2}, now, plain)
