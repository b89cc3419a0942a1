"""No function takes a train of parameters: what belongs together travels together."""

import ast
import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

import piu_lora
from piu_lora.cli.app import app

ROOT = Path(piu_lora.__file__).parent
MOST = 8


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    nodes = ast.walk(ast.parse(path.read_text()))
    return [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Names of all parameters, ``*`` and ``**`` among them; ``self`` and ``cls`` left out."""
    arguments = function.args
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
    names = names[1:] if names[:1] in (["self"], ["cls"]) else names
    names += [argument.arg for argument in arguments.kwonlyargs]
    return names + [argument.arg for argument in (arguments.vararg, arguments.kwarg) if argument]


def place_of(function: Callable[..., object]) -> tuple[str, str]:
    """The file that holds a function, and its name there."""
    return function.__module__.removeprefix("piu_lora.").replace(".", "/") + ".py", function.__name__


def doors() -> set[tuple[str, str]]:
    """The public functions."""
    values = [getattr(piu_lora, name) for name in piu_lora.__all__]
    return {place_of(value) for value in values if inspect.isfunction(value)}


def commands(app: typer.Typer) -> set[tuple[str, str]]:
    """The functions that Typer calls."""
    own = {place_of(command.callback) for command in app.registered_commands if command.callback}
    return own.union(*(commands(group.typer_instance) for group in app.registered_groups))


@pytest.mark.parametrize(
    "path", sorted(ROOT.rglob("*.py")), ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_no_function_takes_more_than_eight_parameters(path: Path) -> None:
    own, free = path.relative_to(ROOT).as_posix(), doors() | commands(app)
    for function in functions(path):
        names = parameters(function)
        if (own, function.name) not in free:
            assert len(names) <= MOST, f"{function.name} takes {len(names)}: {', '.join(names)}"


def test_public_functions_and_commands_are_found() -> None:
    assert ("jobs/forget.py", "forget") in doors()
    assert {("cli/forget.py", "command"), ("cli/stack.py", "merge")} <= commands(app)


def test_parameters_of_every_kind_are_counted() -> None:
    code = "class A:\n    def f(self, a, /, b, *c, d=1, **e): ...\n\ndef g(self_, cls): ...\n"
    counted = [parameters(node) for node in ast.walk(ast.parse(code)) if isinstance(node, ast.FunctionDef)]
    assert sorted(counted) == [["a", "b", "d", "c", "e"], ["self_", "cls"]]
