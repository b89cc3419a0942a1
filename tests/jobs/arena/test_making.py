"""What contenders make, at every strength, kept in a file and read again; on the embedded base."""

from pathlib import Path

import pytest
import torch

from piu_lora.errors import BadInput
from piu_lora.evidence.images import figures_of_images
from piu_lora.jobs.arena.artefact import keep_artefact, open_artefact
from piu_lora.jobs.arena.audit import attack_table, audit_artefact, is_artefact, write_attack_table
from piu_lora.jobs.arena.cells import CellStore
from piu_lora.jobs.arena.compare import compare, contenders, same_settings
from piu_lora.jobs.arena.comparison import Comparison
from piu_lora.jobs.arena.contender import Contender, known_methods, usual_methods
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


def test_a_baseline_in_its_forms_and_words_that_are_varied(swept: Comparison) -> None:
    mini = find_family("mini")
    entrants = contenders(["uce"], ["uce:token=mean,last", "uce:anchor_kept=true"], ["ume-anchor rank=2"])
    settings = {entrant.name: entrant.settings(config(), mini) for entrant in entrants}
    assert settings["uce token=last"]["token"] == "last"
    assert settings["uce anchor_kept=true"]["anchor_kept"] is True
    assert settings["ume-anchor rank=2"] == {**settings["ume-anchor rank=2"], "target": "anchor", "rank": 2}
    with pytest.raises(BadInput, match=r"uce\.token = 'first' has the wrong type: expected one of"):
        contenders(["uce"], ["uce:token=first"])[1].settings(config(), mini)
    assert {row.stored_bytes for row in swept.rows} == {4 * (2 * 8 * 128 + 1)}
    forms = ("uce-", "siss-", "wid-", "ume-")
    assert usual_methods(mini) == [name for name in known_methods(mini) if not name.startswith(forms)]


def test_the_tables_follow_from_the_cosines_of_images(swept: Comparison, folder: Path) -> None:
    for cell in CellStore(folder).all():
        for recognizer, figures in cell.figures.items():
            for name, value in figures_of_images(cell.images[recognizer]).items():
                assert value == pytest.approx(figures[name], abs=2e-3)


def test_a_kept_artefact_is_what_was_made(swept: Comparison, folder: Path, session: Session) -> None:
    path = folder / "artefacts" / "ume-000-42.safetensors"  # strengths of one method share a file
    assert len(list(path.parent.glob("ume*"))) == 1
    artefact = open_artefact(path)
    assert (artefact.variant, artefact.person, artefact.component) == ("ume", 0, "text_encoder")
    pipe = with_difference(session.pipe, artefact.component, artefact.difference)
    rows = session.bank.of(WHO)[:1]
    with torch.no_grad():
        before, after = (
            encode_embeddings(owner.text_encoder, owner.tokenizer, rows) for owner in (session.pipe, pipe)
        )
    assert not torch.equal(before, after)
    assert is_artefact(path)
    assert not is_artefact(folder / "arena.json")
    short = folder / "short.safetensors"
    short.write_bytes(path.read_bytes()[:50])
    with pytest.raises(BadInput, match=r"cannot be read: .*; run its cell again with --keep"):
        open_artefact(short)


def test_all_audits_are_one_table() -> None:
    reports = [
        {
            "adapter": {"method": method},
            "audit": {"attacks": [{"name": name, "succeeded": won} for name, won in attacks]},
        }
        for method, attacks in (
            ("uce", [("bypass", True), ("cone", False)]),
            ("uce", [("bypass", False)]),
            ("piu", [("cone", True)]),
        )
    ]
    assert attack_table(reports).splitlines() == [
        "| method | bypass | cone |",
        "|---|--:|--:|",
        "| uce | 1 of 2 | 0 of 1 |",
        "| piu | - | 1 of 1 |",
    ]


@pytest.mark.slow
def test_a_rivals_dense_weights_are_attacked(maker: Maker, folder: Path, swept: Comparison) -> None:
    """For the person of the cell; the arena is not named whom."""
    artefacts = folder / "artefacts"
    kept = keep_artefact(artefacts, Contender("uce"), 0, 42, maker.make(Contender("uce")))
    assert kept is not None
    assert is_artefact(kept)
    audited = audit_artefact(kept, attacks=["reidentify"], budget="quick")
    assert audited.document["adapter"]["method"] == "uce"
    assert [attack["name"] for attack in audited.document["audit"]["attacks"]] == ["reidentify"]
    assert (folder / "audits" / "uce-000-42" / "report.md").exists()
    table = write_attack_table(folder)
    assert table is not None
    assert "| uce | " in table.read_text()
    with pytest.raises(BadInput, match="holds a report already"):
        audit_artefact(kept)
    with pytest.raises(BadInput, match=r"adds a part to the base \(embedding_adapter"):
        audit_artefact(artefacts / "ume-000-42.safetensors", budget="quick")


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
