"""The recipes in examples/training run as they are, at toy size."""

import json
from pathlib import Path

import pytest
import tokenizers

from m3connect.training.log import read_log
from m3connect.training.loop import train
from m3connect.training.recipe import read_recipe

RECIPES = Path(__file__).parents[2] / "examples/training"

TOY = {
    "retromae": [
        "max_length=48",
        "edges=[16, 48]",
        "sizes=4",
        "optimizer.accumulate=2",
        "optimizer.steps=2",
    ],
    "pairs": ["batching.sizes=8", "batching.passage_length=32", "optimizer.steps=3"],
    "unified": [
        "batching.sizes=8",
        "batching.passage_length=32",
        "batching.negatives=3",
        "objective.self_distill_from=1",
        "optimizer.steps=3",
    ],
}


@pytest.fixture
def data(tmp_path, examples, checkpoint, tokenizer):
    """Files under the names that the recipes use, and a tokenizer with a mask."""
    content = json.loads(tokenizer.to_str())
    content["model"]["vocab"]["<mask>"] = content["model"]["vocab"].pop("w59")
    assert tokenizers.Tokenizer.from_str(json.dumps(content)).token_to_id("<mask>")
    (checkpoint / "tokenizer.json").write_text(json.dumps(content))
    (tmp_path / "train.jsonl").write_text(examples.read_text())
    (tmp_path / "pairs.jsonl").write_text(examples.read_text())
    texts = [json.loads(line)["pos"][0] for line in examples.read_text().splitlines()]
    lines = [json.dumps({"text": text}) + "\n" for text in texts]
    (tmp_path / "texts.jsonl").write_text("".join(lines))
    return tmp_path


@pytest.mark.parametrize("name", TOY)
def test_a_published_stage_runs_at_toy_size(name, data, checkpoint):
    """Each stage of the paper trains a few steps from its recipe; only sizes are smaller."""
    model = f"model={checkpoint}" if name == "retromae" else f"model.name={checkpoint}"
    queries = [] if name == "retromae" else ["batching.query_length=16"]
    common = [model, f"data_directory={data}", f"output={data}/run", "run.precision=no"]
    recipe = read_recipe(RECIPES / f"{name}.toml", [*common, *queries, *TOY[name]])
    train(recipe)
    log = read_log(data / "run/log.jsonl")
    assert log[-1]["step"] == recipe.optimizer.steps
    assert all(entry["loss"] > 0 for entry in log)


def test_every_recipe_is_valid():
    """Whatever lies in the folder reads as a recipe."""
    found = sorted(RECIPES.glob("*.toml"))
    assert {path.stem for path in found} >= {*TOY, "m3_mini"}
    for path in found:
        read_recipe(path)
