"""The names of the modes are one list for Python, commands, recipes and schemas."""

import re
from typing import get_args

import pytest
from typer.testing import CliRunner

from m3connect.cli import app
from m3connect.searching import modes
from m3connect.searching.names import ALIASES, MODES, TUNED, ModeName, TunedModeName
from m3connect.serving.schemas import SearchRequest
from m3connect.training.recipe import EvaluationTable


@pytest.mark.parametrize(
    ("command", "modes"), [("search", MODES), ("mine", MODES), ("tune", TUNED)]
)
def test_commands_take_every_name(command, modes):
    """The refusal of another --mode lists the modes and their other spelling, no more and no less."""
    outcome = CliRunner().invoke(app, [command, "--mode", "colbert"])
    assert outcome.exit_code == 2
    listed = outcome.output.split("is not one of")[1].replace("│", " ")
    assert re.findall(r"'([a-z+]+)'", listed) == [*modes, *ALIASES]


def test_every_name_is_parsed():
    """What is offered is a mode, and a recipe and the service know it."""
    for name in get_args(ModeName):
        mode = modes.parse_mode(name)
        table = {"datasets": ["d"], "every": 1, "mode": name}
        assert EvaluationTable.model_validate(table).mode == mode
        assert SearchRequest(query="q", mode=mode).mode == mode
    assert {modes.parse_mode(name) for name in get_args(TunedModeName)} == set(TUNED)


@pytest.mark.parametrize("name", ["colbert", ["hybrid"]])
def test_a_recipe_refuses_other_names(name):
    """What is no mode is refused where it stands."""
    with pytest.raises(ValueError, match="mode"):
        EvaluationTable.model_validate({"datasets": ["d"], "every": 1, "mode": name})
