"""Registries: what can be known of them before they are filled, and what they refuse."""

from pathlib import Path

import pytest

import piu_lora.attacks
from piu_lora.errors import BadInput
from piu_lora.plugins import announced_names, registered_as


def test_announced_names_are_those_that_register() -> None:
    assert announced_names(Path(piu_lora.attacks.__path__[0]), "attack") == sorted(piu_lora.attacks.ATTACKS)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    assert registered_as("b", {"b": 1, "a": 2}, "letter") == 1
    with pytest.raises(BadInput, match="unknown letter 'c'; known: a, b"):
        registered_as("c", {"b": 1, "a": 2}, "letter")
