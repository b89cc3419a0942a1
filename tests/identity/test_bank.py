import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from piu_lora.errors import BadInput, EnvironmentProblem, Incompatible
from piu_lora.identity import IdentityBank, RecognizerId
from piu_lora.identity.bank import FORMAT
from tests.tiny import RECOGNIZER, WIDTH, tiny_bank


@pytest.fixture
def file(bank: IdentityBank, tmp_path: Path) -> Path:
    bank.save(tmp_path / "people.bank")
    return tmp_path / "people.bank"


def small(**changes: object) -> IdentityBank:
    """Three identities with 2, 1 and 1 embeddings."""
    parts = {
        "embeddings": torch.eye(4),
        "labels": torch.tensor([0, 0, 1, 2]),
        "ids": ["a", "b", "c"],
        "recognizer": RECOGNIZER,
        **changes,
    }
    return IdentityBank(**parts)  # type: ignore[arg-type]


def unequal(
    shots: list[int], width: int = WIDTH, dtype: torch.dtype = torch.float32, seed: int = 0
) -> IdentityBank:
    """Random people with so many embeddings each, of any length."""
    rows = torch.randn(sum(shots), width, generator=torch.Generator().manual_seed(seed)) * 3
    labels = torch.arange(len(shots), dtype=torch.int32).repeat_interleave(torch.tensor(shots))
    return IdentityBank(rows.to(dtype), labels, [f"p{row}" for row in range(len(shots))], RECOGNIZER)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_save_and_load_is_exact(tmp_path: Path, dtype: torch.dtype) -> None:
    bank = tiny_bank()
    bank.embeddings, bank.settings = bank.embeddings.to(dtype), {"detector": 640, "flip": True}
    bank.save(tmp_path / "bank")
    loaded = IdentityBank.load(tmp_path / "bank")
    assert loaded.embeddings.dtype == dtype
    assert torch.equal(loaded.embeddings, bank.embeddings)
    assert torch.equal(loaded.labels, bank.labels)
    assert (loaded.ids, loaded.recognizer, loaded.settings) == (bank.ids, bank.recognizer, bank.settings)


names = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), min_size=1, max_size=12)


@settings(deadline=None)
@given(st.lists(names, min_size=1, max_size=6, unique=True))
def test_any_ids_survive(tmp_path_factory: pytest.TempPathFactory, ids: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "ids.bank"
    IdentityBank(torch.ones(len(ids), 2), torch.arange(len(ids)), ids, RECOGNIZER).save(path)
    assert IdentityBank.load(path).ids == ids


@pytest.mark.parametrize("identity", ["a\nb", ""])
def test_an_id_that_cannot_be_stored_is_refused(tmp_path: Path, identity: str) -> None:
    with pytest.raises(BadInput):
        IdentityBank(torch.ones(1, 2), torch.zeros(1), [identity], RECOGNIZER).save(tmp_path / "bank")


def test_saving_twice_gives_the_same_bytes_and_leaves_nothing_else(file: Path) -> None:
    content = file.read_bytes()
    IdentityBank.load(file).save(file)  # over the file that is mapped
    assert file.read_bytes() == content
    assert list(file.parent.iterdir()) == [file]


def test_a_failed_save_leaves_the_old_file_alone(
    bank: IdentityBank, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_tensors: object, _path: Path, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    content = file.read_bytes()
    monkeypatch.setattr("piu_lora.tensors.save_file", full)
    with pytest.raises(EnvironmentProblem, match="the disk is full; free some room"):
        bank.save(file)
    assert file.read_bytes() == content
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_loaded_bank_is_memory_mapped(file: Path) -> None:
    loaded = IdentityBank.load(file)
    spans = [
        line.split()[0].split("-")
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(str(file))
    ]
    place = loaded.embeddings.data_ptr()
    assert any(int(low, 16) <= place < int(high, 16) for low, high in spans)


def test_centroids_follow_numpy(bank: IdentityBank) -> None:
    for row, identity in enumerate(bank.ids):
        mine = bank.embeddings[bank.labels == row].double().numpy()
        mean = (mine / np.linalg.norm(mine, axis=1, keepdims=True)).mean(axis=0)
        np.testing.assert_allclose(bank.centroids[row], mean / np.linalg.norm(mean), atol=1e-6)
        np.testing.assert_allclose(bank.of(identity), mine, atol=1e-6)
    assert bank.centroids.shape == (len(bank), WIDTH) == (40, bank.width)


def test_half_precision_is_normalised_again(bank: IdentityBank) -> None:
    half = IdentityBank(bank.embeddings.half(), bank.labels, bank.ids, bank.recognizer)
    assert half.of(bank.ids[3]).dtype == torch.float32
    torch.testing.assert_close(half.of(bank.ids[3]).norm(dim=1), torch.ones(6), atol=1e-6, rtol=0)
    torch.testing.assert_close(half.centroids, bank.centroids, atol=1e-3, rtol=0)


def test_identities_of_unequal_size_keep_their_rows() -> None:
    bank = small()
    assert torch.equal(bank.of("a"), torch.eye(4)[:2])
    assert torch.equal(bank.of("c"), torch.eye(4)[3:])
    assert ("a" in bank, "d" in bank, 0 in bank) == (True, False, False)


def test_unknown_id_suggests_the_nearest(bank: IdentityBank) -> None:
    with pytest.raises(
        BadInput,
        match=r"identity 'persn-007' is neither a file nor an id of the bank: did you mean person-007",
    ):
        bank.of("persn-007")
    with pytest.raises(BadInput, match=r"'zzz' .* the bank holds 40 identities, the first is 'person-000'"):
        bank.index("zzz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embeddings": torch.eye(4)[0]}, r"embeddings have shape \(4,\)"),
        ({"embeddings": torch.ones(0, 4), "labels": torch.ones(0)}, r"embeddings have shape \(0, 4\)"),
        ({"labels": torch.tensor([0, 1, 2])}, r"labels have shape \(3,\); expected one label for each of 4"),
        ({"labels": torch.tensor([0, 1, 0, 2])}, r"labels must run 0\.\.2 in ascending order"),
        ({"labels": torch.tensor([0, 0, 2, 2])}, "each at least once"),
        ({"labels": torch.tensor([0, 1, 2, 3])}, "labels must be whole numbers from 0 to 2"),
        ({"labels": torch.tensor([0.0, 0.0, 1.0, 2.0])}, "labels must be whole numbers from 0 to 2"),
        ({"labels": torch.tensor([-1, 0, 1, 2])}, "labels must be whole numbers from 0 to 2"),
        ({"ids": ["a", "b", "a"]}, "bank id 'a' stands for two identities"),
        (
            {"embeddings": torch.eye(4).index_fill(0, torch.tensor(2), torch.nan)},
            "damaged: embedding 2 .*holds NaN",
        ),
        (
            {"embeddings": torch.eye(4).index_fill(0, torch.tensor(1), 0)},
            "damaged: embedding 1 .*is a zero vector",
        ),
    ],
)
def test_a_wrong_bank_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        small(**changes)


def test_a_bank_can_be_rebuilt_from_the_file_by_hand(file: Path, bank: IdentityBank) -> None:
    tensors = load_file(file)
    assert bytes(tensors["ids"].tolist()).decode().split("\n") == bank.ids
    assert torch.equal(tensors["embeddings"], bank.embeddings)


@pytest.mark.parametrize("keep", [0.0, 0.001, 0.1, 0.5, 0.999])
def test_a_truncated_file_is_refused(file: Path, keep: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(BadInput, match=r"cannot read the bank '.*people\.bank'.*build it again"):
        IdentityBank.load(file)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=f"cannot read the bank '{tmp_path / 'none.bank'}'"):
        IdentityBank.load(tmp_path / "none.bank")
    with pytest.raises(BadInput, match=f"'{tmp_path}' is a folder; put a regular file in its place"):
        IdentityBank.load(tmp_path)


def test_a_foreign_file_is_refused(file: Path, tmp_path: Path) -> None:
    save_file({"weight": torch.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(
        BadInput,
        match=r"not an identity bank: format None, missing tensors \['embeddings', 'ids', 'labels'\]",
    ):
        IdentityBank.load(tmp_path / "model.safetensors")
    save_file(load_file(file), tmp_path / "next", {"format": "piu_lora.bank/9"})
    with pytest.raises(
        BadInput, match=r"format 'piu_lora\.bank/9', missing tensors \[\]; expected 'piu_lora\.bank/1'"
    ):
        IdentityBank.load(tmp_path / "next")


def test_damage_inside_a_whole_file_is_found(file: Path) -> None:
    tensors = load_file(file)
    tensors["embeddings"][5, 0] = torch.nan
    save_file(tensors, file, {"format": FORMAT})
    with pytest.raises(BadInput, match=r"embedding 5 .*holds NaN"):
        IdentityBank.load(file)


@pytest.mark.parametrize("change", ["ids", "settings"])
def test_unreadable_ids_or_settings_are_refused(file: Path, change: str) -> None:
    tensors = load_file(file)
    if change == "ids":
        tensors["ids"][0] = 0xFF
    save_file(tensors, file, {"format": FORMAT, "settings": "{" if change == "settings" else "{}"})
    with pytest.raises(BadInput):
        IdentityBank.load(file)


def test_recognizers_are_compared_by_digest_and_both_named() -> None:
    mine = RecognizerId("buffalo", "ab" * 32)
    mine.require(RecognizerId("same file, other name", "ab" * 32), "the bank", "the base")
    with pytest.raises(
        Incompatible,
        match=(
            r"the bank uses recognizer 'buffalo' \(abababababab\), but the base uses 'antelope'"
            r" \(cdcdcdcdcdcd\)"
        ),
    ):
        mine.require(RecognizerId("antelope", "cd" * 32), "the bank", "the base")


def test_equal_banks_have_equal_digests(bank: IdentityBank, file: Path, tmp_path: Path) -> None:
    assert bank.digest == IdentityBank.load(file).digest == tiny_bank().digest
    assert len(bytes.fromhex(bank.digest)) == 32
    moved = IdentityBank.load(file)
    moved.settings = {"detector": "another"}
    moved.save(tmp_path / "moved")
    assert IdentityBank.load(tmp_path / "moved").digest == bank.digest


def test_the_digest_does_not_depend_on_how_labels_are_stored_or_rows_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    digest = small().digest
    assert small(labels=torch.tensor([0, 0, 1, 2], dtype=torch.int32)).digest == digest
    monkeypatch.setattr("piu_lora.identity.bank._BLOCK", 1)
    assert small().digest == digest


@pytest.mark.parametrize(
    "changes",
    [
        {"embeddings": torch.eye(4) * 1.0001},
        {"embeddings": torch.eye(4).half()},
        {"embeddings": torch.eye(4).flip(0)},
        {"labels": torch.tensor([0, 1, 1, 2])},
        {"ids": ["a", "b", "d"]},
        {"ids": ["b", "a", "c"]},
        {"recognizer": RecognizerId("tiny", "11" * 32)},
    ],
)
def test_another_bank_has_another_digest(changes: dict[str, object]) -> None:
    assert small(**changes).digest != small().digest


def test_rows_of_several_people_are_gathered_in_order() -> None:
    bank = unequal([2, 3, 1, 4])
    rows = bank.rows_of([3, 1])
    assert len(rows) == 7
    expected = torch.cat([bank.of("p1"), bank.of("p3")])
    torch.testing.assert_close(rows[torch.arange(7)], expected)
    torch.testing.assert_close(rows[torch.tensor([6, 0, 6])], expected[[6, 0, 6]])
    assert len(bank.rows_of([])) == 0
    assert len(bank.rows_of([2, 2])) == 1


def test_rows_are_read_and_normalised_only_when_asked_for(file: Path) -> None:
    bank = IdentityBank.load(file)
    rows = bank.rows_of(range(len(bank)))
    assert rows.embeddings.data_ptr() == bank.embeddings.data_ptr()
    half = unequal([4, 4], dtype=torch.float16)
    picked = half.rows_of([1])[torch.tensor([0, 3])]
    assert picked.dtype == torch.float32
    torch.testing.assert_close(picked.norm(dim=1), torch.ones(2), atol=1e-6, rtol=0)


def with_header(file: Path, **changes: str) -> Path:
    """The same bank with other values in its header."""
    header = {"format": FORMAT, "recognizer": "r", "recognizer_sha256": "", "settings": "{}", **changes}
    save_file(load_file(file), file, metadata=header)
    return file


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("[1]", r"settings = \[1\]: input should be a valid object"),
        ("{", "settings = '{': expecting property name"),
        ('{"detector": NaN}', "NaN is no number of JSON"),
        ("[" * 100_000, "it is nested too deeply"),
    ],
)
def test_a_damaged_header_is_refused_in_a_sentence(file: Path, settings: str, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        IdentityBank.load(with_header(file, settings=settings))
    assert "build it again or download it" in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(file))


def test_keys_of_other_programs_are_left_aside(file: Path) -> None:
    assert (
        IdentityBank.load(with_header(file, recognizer="x" * 80, made_by="somebody")).recognizer.name
        == "x" * 80
    )
    with pytest.raises(BadInput, match=r"recognizer = 'x+: string should have at most 4096 characters"):
        IdentityBank.load(with_header(file, recognizer="x" * 5000))


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    (tmp_path / "bank.safetensors").write_text("version https://git-lfs.github.com/spec/v1\nsize 9\n")
    with pytest.raises(BadInput, match=r"pointer of Git LFS.*git lfs pull"):
        IdentityBank.load(tmp_path / "bank.safetensors")
