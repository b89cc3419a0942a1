"""What ``forget`` leaves in the ledger: an entry for every adapter, and none for what never came to be."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest
from diffusers import StableDiffusionPipeline

from piu_lora import forget
from piu_lora.adapter import Ledger
from piu_lora.adapter.folder import DIFFUSERS_FILE
from piu_lora.config import ForgetConfig
from piu_lora.errors import Busy, EnvironmentProblem
from piu_lora.identity import IdentityBank
from piu_lora.jobs.ledger import check_ledger
from tests.unlearn.test_gate import EASY

WHO = "person-003"


@pytest.fixture
def fast(fast: ForgetConfig) -> ForgetConfig:
    """A single step: what was learnt is of no matter here."""
    return fast.updated({"train": {"steps": 1, "accumulation": 1}})


@pytest.fixture
def ledger(own_ledger: Path) -> Ledger:
    return Ledger(own_ledger)


def test_the_entry_says_what_the_folder_does_not(
    pipe: StableDiffusionPipeline, bank: IdentityBank, fast: ForgetConfig, tmp_path: Path, ledger: Ledger
) -> None:
    result = forget(WHO, pipe, tmp_path / "out", bank=bank, config=fast, ledger=ledger)
    (entry,) = ledger.entries()
    assert (entry.adapter_id, entry.state, entry.identity) == (result.receipt.adapter_id, "active", WHO)
    assert (entry.bank_digest, entry.base, entry.method) == (bank.digest, "tiny", "piu")
    assert (entry.path, entry.weights_sha256) == (str(tmp_path / "out"), result.receipt.files[DIFFUSERS_FILE])
    assert check_ledger(ledger, [tmp_path]) == []
    assert not [
        path for path in (tmp_path / "out").rglob("*") if path.is_file() and WHO.encode() in path.read_bytes()
    ]


def test_a_path_is_kept_in_full_but_an_id_goes_first(
    pipe: StableDiffusionPipeline,
    bank: IdentityBank,
    fast: ForgetConfig,
    tmp_path: Path,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("somebody.npy", bank.of(WHO).numpy())
    Path(WHO).mkdir()  # photographs of somebody else, say
    for out, identity in (("a", "somebody.npy"), ("b", WHO)):
        forget(identity, pipe, out, bank=bank, config=fast, ledger=ledger)
    assert {Path(entry.path).name: entry.identity for entry in ledger.entries()} == {
        "a": str(tmp_path / "somebody.npy"),
        "b": WHO,
    }


def test_a_replaced_adapter_is_retired(
    pipe: StableDiffusionPipeline, bank: IdentityBank, fast: ForgetConfig, tmp_path: Path, ledger: Ledger
) -> None:
    first, second = (
        forget(WHO, pipe, tmp_path / "out", bank=bank, config=fast, force=True, ledger=ledger).receipt
        for _ in range(2)
    )
    assert {entry.adapter_id: entry.state for entry in ledger.entries()} == {
        first.adapter_id: "withdrawn",
        second.adapter_id: "active",
    }
    assert check_ledger(ledger, [tmp_path]) == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_fails_leaves_no_entry(
    pipe: StableDiffusionPipeline,
    bank: IdentityBank,
    fast: ForgetConfig,
    tmp_path: Path,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
) -> None:
    def fail(*_: object, **__: object) -> None:
        assert [entry.state for entry in ledger.entries()] == ["pending"]
        raise error

    monkeypatch.setattr("piu_lora.jobs.forget.write_adapter", fail)
    with pytest.raises((EnvironmentProblem, KeyboardInterrupt)):
        forget(WHO, pipe, tmp_path / "out", bank=bank, config=fast, ledger=ledger)
    assert ledger.entries() == []
    assert not (tmp_path / "out").exists()


def test_a_ledger_that_stays_locked_leaves_the_checkpoint(
    pipe: StableDiffusionPipeline,
    bank: IdentityBank,
    fast: ForgetConfig,
    tmp_path: Path,
    own_ledger: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The training is not lost: the same command with ``resume`` ends it."""
    monkeypatch.setattr("piu_lora.adapter.ledger_file._WAIT_SECONDS", 0.05)
    with Ledger(own_ledger) as ledger:
        other = sqlite3.connect(own_ledger, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Busy, match="in use by another process"):
            forget(WHO, pipe, tmp_path / "out", bank=bank, config=fast, ledger=ledger)
        other.close()
        assert not (tmp_path / "out").exists()
        forget(WHO, pipe, tmp_path / "out", bank=bank, config=fast, resume=True, ledger=ledger)
        assert len(ledger.entries()) == 1


def test_gate_neurons_of_the_ledgers_other_adapters_are_left_to_them(
    pipe: StableDiffusionPipeline, bank: IdentityBank, fast: ForgetConfig, tmp_path: Path, ledger: Ledger
) -> None:
    config = fast.updated({"method": "gate-encoder", **EASY})

    def gates(who: str, name: str) -> set[str]:
        made = forget(
            who, pipe, tmp_path / name, bank=bank, config=config, ledger=ledger, evaluate=False, force=True
        )
        return set(made.receipt.solution["gates"])

    first, second = gates(WHO, "first"), gates("person-017", "second")
    assert not first & second
    assert gates(WHO, "first") == first  # the person's own adapter is in nobody's way
    for entry in ledger.entries():
        ledger.withdraw(entry.adapter_id)
    assert gates("person-017", "second") == first  # the least important ones
