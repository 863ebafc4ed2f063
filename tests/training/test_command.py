"""The command line: dry runs, reports, development figures, many processes."""

import json
import subprocess
import sys

import pytest
import torch
from typer.testing import CliRunner

from m3connect.cli import app
from m3connect.errors import ConfigError, InputError
from m3connect.searching.names import MODES
from m3connect.training.contrastive import Contrastive
from m3connect.training.estimate import forecast
from m3connect.training.gradcache import forward
from m3connect.training.log import read_log
from m3connect.training.recipe import Recipe, read_recipe

SETTINGS = ("optimizer.learning_rate=1e-3", "run.sub_batch_tokens=100000")


def run(*arguments):
    """The command's exit code and output."""
    return CliRunner().invoke(app, ["train", *map(str, arguments)], catch_exceptions=False)


@pytest.mark.slow
def test_a_run_ends_with_a_model_and_a_report(recipe_file, tmp_path):
    """The command names what it made; the report holds curves and needs nothing from the network."""
    result = run(recipe_file, "--json")
    found = json.loads(result.stdout)
    assert (tmp_path / "run/last/model.safetensors").is_file()
    assert found["model"] == str(tmp_path / "run/last")
    page = (tmp_path / "run/report.html").read_text()
    assert page.count("<svg") >= 5
    assert "Lexical terms of a passage" in page
    assert "<script" not in page


@pytest.mark.slow
def test_development_figures_are_measured_in_every_mode(recipe_file, development, tmp_path):
    """Small copies of the development sets are measured on the way; the best model is kept."""
    settings = [
        "evaluation.datasets=['dev']",
        "evaluation.every=3",
        "evaluation.queries=10",
        "evaluation.documents=20",
    ]
    result = run(recipe_file, "--json", *[item for value in settings for item in ("--set", value)])
    assert json.loads(result.stdout)["model"] == str(tmp_path / "run/best")
    measured = [entry for entry in read_log(tmp_path / "run/log.jsonl") if "dev_all" in entry]
    assert [entry["step"] for entry in measured] == [3, 6, 7]
    assert all(0 < entry[f"dev_{mode}"] <= 1 for entry in measured for mode in MODES)
    copy = tmp_path / "run/development/10-of-20/dev"
    assert len((copy / "corpus.jsonl").read_text().splitlines()) == 20
    assert len((copy / "queries.jsonl").read_text().splitlines()) == 10


@pytest.mark.usefixtures("empty_charts")
@pytest.mark.parametrize(
    ("legs", "settings", "modes"),
    [
        (["dense"], [], ["dense"]),
        (["multivector"], [], ["multivector"]),
        (["dense", "sparse"], [], ["dense", "sparse", "hybrid"]),
        (["sparse"], ["evaluation.mode=all"], ["sparse", "all"]),
    ],
)
def test_only_trained_modes_are_measured(recipe_file, development, tmp_path, legs, settings, modes):
    """What the legs make is measured, and the mode that is asked for; the last decides."""
    settings = [
        "evaluation.datasets=['dev']",
        "evaluation.every=2",
        "optimizer.steps=2",
        f"objective.legs={legs}",
        *settings,
    ]
    result = run(recipe_file, "--json", *[item for value in settings for item in ("--set", value)])
    assert json.loads(result.stdout)["model"] == str(tmp_path / "run/best")
    *_, entry = read_log(tmp_path / "run/log.jsonl")
    assert [name for name in entry if name.startswith("dev_")] == [f"dev_{mode}" for mode in modes]


def test_a_dry_run_plans_and_trains_nothing(recipe_file, tmp_path):
    """Examples by dataset and length, steps, tokens, memory and time; no output folder."""
    found = json.loads(run(recipe_file, "--dry-run", "--json").stdout)
    assert sum(line["examples"] for line in found["lines"]) == 48
    assert found["steps"] == sum(line["batches"] for line in found["lines"])
    assert found["tokens"] > 0
    assert found["seconds"] > 0
    assert not (tmp_path / "run").exists()
    assert "queries a batch" in run(recipe_file, "--dry-run").stdout
    measured = ["--set", "evaluation.datasets=['nodev']", "--set", "evaluation.every=1"]
    with pytest.raises(InputError, match="nodev"):  # as the run itself would be refused
        run(recipe_file, "--dry-run", *measured)


def test_a_dry_run_plans_for_other_machines(recipe_file):
    """The rate of a card is given and nothing is timed; many share a batch, and each has its part of it."""
    alone, two = (
        json.loads(
            run(recipe_file, "--dry-run", "--json", "--rate", "50", "--processes", number).stdout
        )
        for number in ("1", "2")
    )
    assert (alone["rate"], alone["seconds"]) == (50, alone["tokens"] / 50)
    assert two["seconds"] == two["tokens"] / 100
    assert two["memory"]["token similarities"] > alone["memory"]["token similarities"]
    command = (
        recipe_file,
        "--dry-run",
        "--json",
        "--rate",
        "50",
        "--set",
        "objective.legs=['dense']",
    )
    dense = json.loads(run(*command).stdout)["memory"]
    assert 0 < dense["representations"] < alone["memory"]["representations"]
    assert "token similarities" not in dense
    shown = run(recipe_file, "--dry-run", "--rate", "0.005", "--processes", "2").stdout
    assert "0.005 tokens a second and process (given)" in shown
    assert "hours in 2 processes" in shown
    refused = CliRunner().invoke(app, ["train", str(recipe_file), "--rate", "5"])
    assert isinstance(refused.exception, ConfigError)


def test_estimated_memory_is_near_what_is_kept(recipe_file):
    """The estimate of a batch's activations is within a third of what autograd keeps."""
    plan = read_recipe(recipe_file, ["batching.edges=[32]", "run.gradient_cache=false"])
    estimate = forecast(plan).memory["activations"]
    assert isinstance(plan, Recipe)
    task = Contrastive(plan)
    task.restart()
    sizes = []
    for planned in task.plan(0, 1):
        batch, kept = task.batch(planned, 0, 0, 1), {}

        def keep(tensor, kept=kept):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            graphs = [
                forward(task.module.train(), texts, torch.arange(len(texts)), ("dense",))
                for texts in (batch.queries, batch.passages)
            ]
        weights = {weight.untyped_storage().data_ptr() for weight in task.module.parameters()}
        sizes.append(sum(size for place, size in kept.items() if place not in weights))
        del graphs
    assert estimate == pytest.approx(max(sizes), rel=0.35)


@pytest.mark.slow
def test_a_mistake_is_one_line_and_exit_code_2(recipe_file):
    """A bad key is named without a traceback."""
    command = [
        sys.executable,
        "-m",
        "m3connect.training",
        str(recipe_file),
        "--set",
        "batching.size=3",
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "batching.size" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_two_processes_train_one_model(recipe_file, tmp_path):
    """Under torchrun two processes share the batches, write one log and one model, and agree."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "m3connect.training",
        str(recipe_file),
        "--json",
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["model"] == str(tmp_path / "run/last")
    log = read_log(tmp_path / "run/log.jsonl")
    assert [entry["step"] for entry in log] == [1, 2, 3]
    assert (tmp_path / "run/last/model.safetensors").is_file()
