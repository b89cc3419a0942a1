"""The library's words become options, on the command line only."""

import logging

import pytest

from piu_lora.cli.app import app
from piu_lora.cli.messages import OptionFormatter, option_names, translated


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("raise closed.retained=3, or", "raise --set closed.retained=3, or"),
        ("Pass train.precision=bf16 or fp32", "Pass --set train.precision=bf16 or fp32"),
        ("ask for a higher rate (anchor.far=...)", "ask for a higher rate (--set anchor.far=...)"),
        ("closed.retained = 3 is out of range", "closed.retained = 3 is out of range"),
        ("pass bank=FILE", "pass --bank FILE"),
        ("pass second=PACK and second_bank=FILE", "pass --second PACK and --second-bank FILE"),
        ("resume=True to go on, or force=True;", "--resume to go on, or --force;"),
        ("pass evaluate=False", "pass --no-evaluate"),
        ("out = 'a b.jpg' does not end in .png", "--out 'a b.jpg' does not end in .png"),
        ("people = 5000 is out of range", "--people 5000 is out of range"),
        ("with `identity` they", "with --identity they"),
        (
            "vary='train.key=1' or variants='a train.key=1'",
            "--vary 'train.key=1' or --variant 'a train.key=1'",
        ),
        ("the adapter's anchor; pass pack=DIR", "the adapter's anchor; pass --pack DIR"),
    ],
)
def test_settings_and_arguments_become_options(message: str, expected: str) -> None:
    assert translated(message) == expected


@pytest.mark.parametrize(
    "message",
    [
        "the setting 'train.steps=many' is wrong",
        "'photos bank=x' is no folder",
        "`pip install x=1` mends it",
        "`forget` did not see them",
        "somebody=else is no option",
        'pip install "torch>=2.6,<2.14"',
        "https://host/path?bank=1",
    ],
)
def test_quoted_text_commands_and_strangers_stay(message: str) -> None:
    assert translated(message) == message


def test_every_option_of_every_command_is_known() -> None:
    names = option_names(app)
    assert names["settings"] == ("--set", "")
    assert names["evaluate"] == ("--evaluate", "--no-evaluate")
    assert names["as_json"][0] == "--json"


def test_warnings_are_translated_and_records_are_left_alone() -> None:
    record = logging.LogRecord("piu_lora", logging.WARNING, "", 0, "%s; pass `identity`", ("x",), None)
    assert OptionFormatter("%(message)s").format(record) == "x; pass --identity"
    assert record.getMessage() == "x; pass `identity`"
