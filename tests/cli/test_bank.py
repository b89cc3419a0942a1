"""Each `bank` command through the real entry point: what is on stdout, what on stderr, and the exit code."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from piu_lora.identity import IdentityBank, RecognizerId
from tests.cli.test_cli import Result, assert_refused, piu
from tests.photos import PACK, PORTRAITS, needs_faces
from tests.tiny import RECOGNIZER, WIDTH, tiny_bank

RECOGNIZER_OPTIONS = ("--recognizer", "arcface.onnx", "--recognizer-sha256", "ab" * 32)


def answer(result: Result) -> dict[str, object]:
    """The JSON on stdout, and nothing but it."""
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture
def bank_file(tmp_path: Path) -> Path:
    tiny_bank().save(tmp_path / "bank.safetensors")
    return tmp_path / "bank.safetensors"


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    folder = tmp_path / "arrays"
    folder.mkdir()
    bank = tiny_bank(5)
    np.save(folder / "embeddings.npy", 20 * bank.embeddings.numpy())
    np.save(folder / "labels.npy", bank.labels.numpy().astype(np.int64))
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three people, two portraits each, under made-up names; and a file that is no picture."""
    root = tmp_path_factory.mktemp("cli") / "photos"
    for name, folder in zip(("anna", "bert", "cleo"), sorted(PORTRAITS.iterdir()), strict=False):
        (root / name).mkdir(parents=True)
        for year in (2014, 2024):
            (root / name / f"{year}.jpg").symlink_to(folder / f"{year}.jpg")
    (root / "bert" / "torn.jpg").write_text("not a picture")
    return root


def flattened(photos: Path, folder: Path) -> Path:
    folder.mkdir()
    for file in photos.rglob("20*.jpg"):
        (folder / f"{file.parent.name}-{file.name}").symlink_to(file.resolve())
    return folder


# --- build


@needs_faces
def test_build_answers_with_an_account_of_every_photograph(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "bank.safetensors"
    found = answer(piu("bank", "build", photos, "--out", out, "--pack", PACK, "--workers", 2, "--json"))
    assert set(found) == {
        "path",
        "geometry",
        "digest",
        "identities",
        "embeddings",
        "photos",
        "faces",
        "layout",
        "merged",
        "rejected",
        "doubles",
        "turned",
    }
    assert (found["identities"], found["embeddings"], found["photos"], found["layout"]) == (
        3,
        6,
        7,
        "folders",
    )
    assert found["rejected"] == [{"photo": str(photos / "bert" / "torn.jpg"), "reason": "not a picture"}]
    bank = IdentityBank.load(out)
    assert (bank.ids, bank.digest) == (["anna", "bert", "cleo"], found["digest"])
    assert bank.settings["several"] == "largest"
    assert [file.name for file in tmp_path.iterdir()] == ["bank.safetensors"]


@needs_faces
def test_build_in_words_has_its_progress_on_stderr(photos: Path, tmp_path: Path) -> None:
    result = piu(
        "bank", "build", photos, "--out", tmp_path / "bank.safetensors", "--pack", PACK, "--workers", 2
    )
    first, left_out, digest = result.stdout.splitlines()
    assert first == "3 identities, 6 embeddings from 7 photographs (6 faces)"
    assert left_out == f"left out  {photos / 'bert' / 'torn.jpg'}: not a picture"
    assert re.fullmatch("digest [0-9a-f]{64}", digest)
    assert "photos" in result.stderr
    assert "7/7" in result.stderr


@needs_faces
def test_build_with_calibrate_proposes_eps_and_writes_no_bank(photos: Path, tmp_path: Path) -> None:
    flat = flattened(photos, tmp_path / "flat")
    picture = tmp_path / "made" / "cosines.png"
    picture.parent.mkdir()
    found = answer(
        piu("bank", "build", photos, "--calibrate", picture, "--pack", PACK, "--workers", 2, "--json")
    )
    assert set(found) == {"eps", "nearest_stranger", "same_person", "labelled"}
    assert found["labelled"] is True
    assert picture.read_bytes().startswith(b"\x89PNG")
    out = tmp_path / "bank.safetensors"
    made = answer(
        piu(
            "bank",
            "build",
            flat,
            "--out",
            out,
            "--eps",
            found["eps"],
            "--pack",
            PACK,
            "--workers",
            2,
            "--json",
        )
    )
    assert (made["layout"], made["identities"], made["rejected"]) == ("flat", 3, [])
    assert [file.name for file in picture.parent.iterdir()] == ["cosines.png"]


@needs_faces
def test_build_with_calibrate_makes_the_folder_of_the_picture(photos: Path, tmp_path: Path) -> None:
    """As `--out` does for a bank."""
    picture = tmp_path / "new" / "cosines.png"
    answer(piu("bank", "build", photos, "--calibrate", picture, "--pack", PACK, "--workers", 2, "--json"))
    assert picture.exists()


@needs_faces
def test_build_refuses_what_it_cannot_do(photos: Path, tmp_path: Path, bank_file: Path) -> None:
    def build(*arguments: object) -> Result:
        return piu("bank", "build", *arguments, "--pack", PACK)

    out = tmp_path / "new.safetensors"
    assert_refused(build(tmp_path / "nowhere", "--out", out), f"'{tmp_path / 'nowhere'}' is not a folder")
    assert_refused(build(photos, "--out", bank_file), f"'{bank_file}' exists already", "--force")
    assert_refused(build(photos, "--out", out, "--several", "some"), "'some'", "'largest', 'only', 'all'")
    assert_refused(build(flattened(photos, tmp_path / "flat"), "--out", out, "--eps", "3"), "--eps 3,")
    assert not out.exists()


def test_build_without_a_pack_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIU_LORA_PACK", str(tmp_path / "no-pack"))
    result = piu("bank", "build", tmp_path, "--out", tmp_path / "bank.safetensors")
    assert_refused(result, f"'{tmp_path / 'no-pack'}'", "`piu-lora bank models`", code=3)


@needs_faces
def test_build_without_out_is_a_usage_error(photos: Path) -> None:
    result = piu("bank", "build", photos, "--pack", PACK)
    assert (result.returncode, result.stdout) == (2, "")
    assert "--out FILE" in result.stderr
    assert "Traceback" not in result.stderr


# --- import


def test_import_answers_with_what_the_bank_holds(arrays: Path, tmp_path: Path) -> None:
    out = tmp_path / "bank.safetensors"
    found = answer(piu("bank", "import", arrays, "--out", out, *RECOGNIZER_OPTIONS, "--json"))
    assert set(found) == {"path", "digest", "identities", "embeddings", "imported", "noise", "raw_norms"}
    assert (found["identities"], found["embeddings"], found["noise"]) == (5, 30, 0)
    bank = IdentityBank.load(out)
    assert bank.digest == found["digest"]
    assert bank.recognizer == RecognizerId("arcface.onnx", "ab" * 32)
    words = piu("bank", "import", arrays, "--out", tmp_path / "again.safetensors", *RECOGNIZER_OPTIONS)
    assert (
        words.stdout
        == f"5 identities, 30 embeddings in {tmp_path / 'again.safetensors'}\ndigest {bank.digest}\n"
    )


@needs_faces
def test_import_takes_the_recognizer_of_a_pack(arrays: Path, tmp_path: Path) -> None:
    answer(piu("bank", "import", arrays, "--out", tmp_path / "bank.safetensors", "--pack", PACK, "--json"))
    recognizer = IdentityBank.load(tmp_path / "bank.safetensors").recognizer
    assert (PACK / recognizer.name).exists()
    assert len(recognizer.sha256) == 64


def test_import_refuses_what_is_not_there(arrays: Path, tmp_path: Path, bank_file: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert_refused(
        piu("bank", "import", nowhere, "--out", tmp_path / "b", *RECOGNIZER_OPTIONS),
        f"'{nowhere}' is not a folder",
    )
    assert_refused(
        piu("bank", "import", arrays, "--out", bank_file, *RECOGNIZER_OPTIONS),
        f"'{bank_file}' exists already",
    )
    (arrays / "labels.npy").unlink()
    assert_refused(
        piu("bank", "import", arrays, "--out", tmp_path / "b", *RECOGNIZER_OPTIONS),
        f"'{arrays}' holds no labels.npy",
    )


def test_forgetting_against_an_imported_bank_of_another_recognizer_is_refused(
    arrays: Path, tmp_path: Path
) -> None:
    answer(
        piu("bank", "import", arrays, "--out", tmp_path / "bank.safetensors", *RECOGNIZER_OPTIONS, "--json")
    )
    refused = piu(
        "forget",
        "--identity",
        "3",
        "--bank",
        tmp_path / "bank.safetensors",
        "--out",
        tmp_path / "out",
        "--no-evaluate",
    )
    assert_refused(refused, "'arcface.onnx' (abababababab)", "'mini-conditioning'")


# --- show, check, export


def test_show_answers_with_figures_and_draws_them(bank_file: Path, tmp_path: Path) -> None:
    found = answer(piu("bank", "show", bank_file, "--json"))
    assert set(found) == {
        "identities",
        "embeddings",
        "width",
        "digest",
        "per_identity",
        "norms",
        "recognizer",
        "recognizer_sha256",
        "settings",
        "same_person",
        "different_people",
        "anchors",
        "geometry",
        "first_ids",
    }
    assert (found["identities"], found["embeddings"], found["width"]) == (40, 240, WIDTH)
    assert found["recognizer_sha256"] == RECOGNIZER.sha256
    picture = tmp_path / "cosines.png"
    words = piu("bank", "show", bank_file, "--out", picture)
    assert re.search(r"^identities +40$", words.stdout, re.MULTILINE)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert_refused(piu("bank", "show", bank_file, "--out", picture), f"'{picture}' exists already")


def test_show_refuses_what_is_no_bank(tmp_path: Path) -> None:
    assert_refused(piu("bank", "show", tmp_path / "nowhere"), str(tmp_path / "nowhere"))
    (tmp_path / "text").write_text("no bank")
    assert_refused(piu("bank", "show", tmp_path / "text"), f"'{tmp_path / 'text'}'")


def test_check_exits_0_for_sound_1_for_problems_2_for_misuse(bank_file: Path, tmp_path: Path) -> None:
    sound = piu("bank", "check", bank_file, "--double", "1")
    assert (sound.returncode, sound.stdout) == (0, "1 sound\n")
    assert answer(piu("bank", "check", bank_file, "--double", "1", "--json")) == {"banks": 1, "problems": []}

    doubtful = piu("bank", "check", bank_file, tmp_path / "nowhere", "--double", "0.3", "--json")
    assert doubtful.returncode == 1
    found = json.loads(doubtful.stdout)
    assert found["banks"] == 2
    assert any("'person-" in problem and "likely one person" in problem for problem in found["problems"])
    assert any("nowhere" in problem for problem in found["problems"])
    assert (
        piu("bank", "check", bank_file, "--double", "0.3").stdout.count("likely one person")
        == len(found["problems"]) - 1
    )

    misused = piu("bank", "check", bank_file, "--double", "3")
    assert (misused.returncode, misused.stdout) == (2, "")
    assert "--double" in misused.stderr
    assert piu("bank", "check").returncode == 2


def test_export_writes_the_rows_of_one_identity_for_their_owner(bank_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.npy"
    assert answer(piu("bank", "export", "person-003", "--bank", bank_file, "--out", out, "--json")) == {
        "path": str(out),
        "embeddings": 6,
    }
    assert torch.allclose(torch.from_numpy(np.load(out)), tiny_bank().of("person-003"))
    assert out.stat().st_mode & 0o777 == 0o600
    assert_refused(
        piu("bank", "export", "person-003", "--bank", bank_file, "--out", out), f"'{out}' exists already"
    )
    unknown = piu("bank", "export", "person-0033", "--bank", bank_file, "--out", tmp_path / "other.npy")
    assert_refused(unknown, "'person-0033'", "did you mean", "person-003")
    assert not (tmp_path / "other.npy").exists()


# --- models


@needs_faces
def test_models_sets_the_pack_up_from_files_at_hand(tmp_path: Path) -> None:
    detector, recognizer = sorted(PACK.glob("*.onnx"))
    source = tmp_path / "antelopev2"
    source.mkdir()
    (source / "scrfd_10g_bnkps.onnx").symlink_to(detector)
    options = ("--pack", tmp_path / "pack", "--antelopev2", source, "--arcface", recognizer)
    found = answer(piu("bank", "models", *options, "--json"))
    assert set(found) == {"pack", "recognizer", "recognizer_sha256"}
    assert (found["pack"], found["recognizer"]) == (str(tmp_path / "pack"), "arcface.onnx")
    words = piu("bank", "models", *options)
    digest = str(found["recognizer_sha256"])[:12]
    assert words.stdout == f"face pack in {tmp_path / 'pack'}, recognizer 'arcface.onnx' ({digest})\n"


def test_models_refuses_a_source_that_is_not_there(tmp_path: Path) -> None:
    result = piu("bank", "models", "--pack", tmp_path / "pack", "--antelopev2", tmp_path / "nowhere")
    assert_refused(result, f"--antelopev2 '{tmp_path / 'nowhere'}'", "scrfd_10g_bnkps.onnx")


def test_bank_alone_lists_its_commands() -> None:
    result = piu("bank", "--help")
    assert result.returncode == 0
    for name in ("models", "build", "import", "show", "check", "export"):
        assert name in result.stdout
