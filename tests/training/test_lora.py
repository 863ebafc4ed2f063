"""Adapters: what learns, what is saved, what a restart finds."""

import sys

import pytest
import torch
from safetensors.torch import load_file

from m3connect.errors import ConfigError
from m3connect.model.checkpoint import open_checkpoint
from m3connect.model.weights import load_model
from m3connect.training.contrastive import Contrastive
from m3connect.training.estimate import forecast
from m3connect.training.log import read_log
from m3connect.training.loop import train
from m3connect.training.lora import add_adapters
from m3connect.training.recipe import LoraTable
from m3connect.training.trainable import Trainable, save_trainable

pytestmark = pytest.mark.slow  # peft takes seconds to import

SETTINGS = (
    "model.dropout=0.1",
    "lora={rank=2, alpha=8, dropout=0.1}",
    "batching.edges=[32]",
    "optimizer.learning_rate=3e-2",
    "run.sub_batch_tokens=60",
    "run.checkpoint_every=3",
)


def weights(folder):
    return load_file(folder / "model.safetensors")


def test_matrices_of_the_encoder_learn_a_difference_of_low_rank(recipe, checkpoint):
    """Every linear matrix moves by rank 2, the heads move freely, all else of the encoder stays."""
    before, after = weights(checkpoint), weights(train(recipe()))
    assert after.keys() == before.keys()
    moved = {name for name, tensor in before.items() if not torch.equal(after[name], tensor)}
    matrices = {
        name for name, tensor in before.items() if name.startswith("encoder.") and tensor.dim() == 2
    }
    heads = {name for name in before if "_linear." in name}
    assert moved == matrices | heads
    for name in matrices:
        difference = torch.linalg.svdvals(after[name] - before[name])
        assert difference[1] > 1e-4
        assert difference[2] < 1e-5


def test_the_merged_model_gives_what_the_adapted_one_gave(model, tokenizer, checkpoint, tmp_path):
    """A saved model needs no adapters to give the same three representations, to 1e-6."""
    table = LoraTable(rank=3, alpha=5)
    add_adapters(model, table, 1)
    adapters = [(name, weight) for name, weight in model.named_parameters() if "lora_" in name]
    assert all(".layer.1." in name for name, _ in adapters)
    for _, weight in adapters:
        torch.nn.init.normal_(weight, std=0.3)
    save_trainable(Trainable(model, tokenizer, checkpoint, table), tmp_path / "merged")
    ordinary = load_model(open_checkpoint(tmp_path / "merged"))
    ids = torch.randint(4, 60, (5, 9))
    adapted = model.eval()(ids)
    for one, other in zip(adapted, ordinary.eval()(ids), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    for _, weight in adapters:
        torch.nn.init.zeros_(weight)
    assert (model(ids).dense - adapted.dense).abs().max() > 1e-3


@pytest.mark.slow
def test_an_interrupted_run_goes_on_bit_for_bit(recipe, tmp_path):
    """Adapters come back from a checkpoint with their optimizer and their dropout."""
    whole = weights(train(recipe(f"output={tmp_path}/whole")))

    def interrupt(trainable):
        raise KeyboardInterrupt

    measured = ["evaluation.datasets=['none']", "evaluation.every=5"]
    with pytest.raises(KeyboardInterrupt):
        train(recipe(*measured), evaluate=interrupt)
    resumed = weights(train(recipe(), resume=True))
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())


def test_cached_gradients_are_the_plain_ones(recipe, tmp_path):
    """Adapters learn the same with the gradient cache and without."""
    still = ["model.dropout=0.0", "lora.dropout=0.0"]
    train(recipe(*still))
    train(recipe(f"output={tmp_path}/plain", "run.gradient_cache=false", *still))
    cached, plain = (read_log(tmp_path / name / "log.jsonl") for name in ("run", "plain"))
    for name in ("loss", "grad_norm"):
        expected = [entry[name] for entry in plain]
        assert [entry[name] for entry in cached] == pytest.approx(expected, rel=1e-3)


def test_development_figures_see_the_adapters(recipe):
    """What is measured during the run is the model that is saved then."""
    ids = torch.arange(4, 12)[None]
    seen = []

    def evaluate(trainable):
        seen.append(trainable.model(ids).dense.detach())
        return {"all": float(len(seen))}

    measured = ["evaluation.datasets=['x']", "evaluation.every=3"]
    folder = train(recipe(*measured), evaluate=evaluate)
    saved = load_model(open_checkpoint(folder)).eval()(ids).dense
    torch.testing.assert_close(saved, seen[-1], rtol=0, atol=1e-6)
    assert (seen[0] - seen[-1]).abs().max() > 1e-4


def test_a_dry_run_counts_what_learns(recipe):
    """Of a weight that stays, memory holds it alone; of one that learns, four numbers."""
    plan = recipe()
    layer = 2 * (4 * (16 + 16) + 2 * (16 + 32))
    learning = 2 * layer + (16 + 1) + (16 * 8 + 8)
    task = Contrastive(plan)
    every = sum(weight.numel() for weight in task.module.parameters()) + 2 * layer
    expected = 4 * (4 * learning + every - learning)
    assert forecast(plan).memory["weights, gradients, moments"] == expected


def test_nothing_to_adapt_is_an_error(recipe):
    """A frozen encoder and adapters contradict each other."""
    with pytest.raises(ConfigError, match="nothing to adapt"):
        recipe("model.frozen='encoder'")


def test_without_peft_the_pip_line_is_shown(recipe, monkeypatch, tmp_path):
    """The run ends before it claims its folder."""
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r'pip install "m3connect\[lora\]"'):
        train(recipe())
    assert not (tmp_path / "run").exists()
