"""The receipt as a typed document: bounds, sentences, and the same bytes as ever."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from piu_lora.adapter import BaseRef, Receipt
from piu_lora.adapter.receipt import receipt_schema
from piu_lora.errors import BadInput

ADAPTERS = Path(__file__).parent.parent.parent / "adapters"
STORED = sorted(ADAPTERS.glob("*/forget.json"))
EVALUATED = next(path for path in STORED if "mini-piu" in str(path))
ISM = ("evaluation", "recognizers", "conditioning", "ism", "forget")


def changed(path: tuple[str, ...], value: object) -> str:
    """A stored receipt with one value changed."""
    receipt: dict[str, Any] = json.loads(EVALUATED.read_text())
    inner = receipt
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return json.dumps(receipt)


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.parent.name)
def test_stored_receipts_keep_their_bytes(path: Path) -> None:
    """Apart from ``solution``, which receipts did not have when these were written."""
    text = path.read_text()
    again = Receipt.from_json(text, str(path)).to_json()
    assert again.replace('  "solution": {},\n', "") == text.replace('  "solution": {},\n', "")


def test_keys_and_their_order() -> None:
    made = Receipt(
        BaseRef("x", "tiny", "0"),
        "piu",
        {"b": (1, 2), "a": 1.0},
        {"rule": "nearest", "cosine": 1},
        seconds={"train": 2},
        members=[{"adapter_id": "a", "weight": 1}, {"adapter_id": "b", "weight": 0.5}],
        adapter_id="a0",
    )
    assert made.to_json() == (Path(__file__).parent / "receipt.json").read_text()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("counts", "forget_train"), 1.5, "counts.forget_train = 1.5: input should be a valid integer"),
        (("counts", "forget_train"), 10**30, "should be less than or equal to 1000000000"),
        (
            ("counts", "forget_train"),
            -1,
            "counts.forget_train = -1: input should be greater than or equal to 0",
        ),
        (("counts", "forget_train"), True, "counts.forget_train = True: input should be a valid integer"),
        (("seconds", "train"), float("nan"), "NaN is no number of JSON"),
        (("settings", "seed"), float("-inf"), "-Infinity is no number of JSON"),
        (("seconds", "train"), "x", "seconds.train = 'x': input should be a valid number"),
        (("anchor", "cosine"), 1.5, "anchor.cosine = 1.5: input should be less than or equal to 1"),
        ((*ISM, "ratio"), "x", "conditioning.ism.forget.ratio = 'x': input should be a valid number"),
        ((*ISM, "before"), None, "conditioning.ism.forget.before = None: input should be a valid number"),
        ((*ISM, "after_interval"), [1], "forget.after_interval = [1]: list should have at least 2 items"),
        (
            ("members",),
            [{"adapter_id": 1, "weight": 1}],
            "members.0.adapter_id = 1: input should be a valid string",
        ),
        (("members",), [{"adapter_id": "a"}], "members.0.weight is missing"),
        (("foreign",), 1, "'foreign' is no field of a receipt"),
        (("base", "x"), 1, "'base.x' is no field of a receipt"),
        (("base",), None, "base = None: input should be an object"),
        (("adapter_id",), "../x", "adapter_id = '../x': string should match pattern"),
        (("versions", "torch"), None, "versions.torch = None: input should be a valid string"),
        (("settings",), [], "settings = []: input should be a valid object"),
        (("files",), {"a": 1}, "files.a = 1: input should be a valid string"),
        (("method",), "x" * 5000, "string should have at most 4096 characters"),
        (("method",), "\ud800", "method = '\\ud800': input should be a valid string"),
    ],
)
def test_a_damaged_receipt_is_refused_in_a_sentence(
    path: tuple[str, ...], value: object, message: str
) -> None:
    with pytest.raises(BadInput, match=re.escape(message)) as caught:
        Receipt.from_json(changed(path, value), "forget.json")
    text = str(caught.value)
    assert text.startswith("forget.json is damaged: ")
    assert text.endswith("; make or download the adapter again")
    assert len(text.splitlines()) == 1
    assert len(text) < 400


def test_a_number_beyond_all_bounds() -> None:
    text = EVALUATED.read_text()
    seconds = re.sub(r'"train": [\d.]+', '"train": 1e999', text)
    with pytest.raises(BadInput, match=r"seconds\.train = inf: input should be a finite number"):
        Receipt.from_json(seconds, "forget.json")


def test_what_a_later_version_adds_to_a_part_is_kept() -> None:
    receipt = Receipt.from_json(changed((*ISM, "median"), 0.5), "forget.json")
    assert (
        json.loads(receipt.to_json())["evaluation"]["recognizers"]["conditioning"]["ism"]["forget"]["median"]
        == 0.5
    )


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.parent.name)
def test_the_generated_schema_takes_stored_receipts(path: Path) -> None:
    schema = receipt_schema()
    Draft202012Validator.check_schema(schema)
    receipt = json.loads(path.read_text())
    assert not list(Draft202012Validator(schema).iter_errors(receipt))
    assert list(Draft202012Validator(schema).iter_errors({**receipt, "counts": {"people": -1}}))
