"""What frozen layers make of a text is computed once; nothing else changes."""

import pytest
import torch
from safetensors.torch import load_file

from m3connect.errors import ConfigError
from m3connect.model.backbone import Layer
from m3connect.training.frozen import FrozenStates
from m3connect.training.log import read_log
from m3connect.training.loop import train
from m3connect.training.recipe import ModelTable, OptimizerTable, RetroMaeRecipe

SETTINGS = ("model.frozen=embeddings", "model.frozen_layers=1", "optimizer.epochs=3")
FROZEN = ModelTable(name="tiny", frozen="embeddings", frozen_layers=1)


@pytest.fixture
def passes(monkeypatch):
    """How often each layer was called."""
    counts = {}
    forward = Layer.forward

    def counted(self, *given):
        counts[self] = counts.get(self, 0) + 1
        return forward(self, *given)

    monkeypatch.setattr(Layer, "forward", counted)
    return counts


@pytest.mark.parametrize("frozen", ["embeddings", "encoder"])
def test_states_are_those_of_the_layers(model, collator, frozen):
    """Padded or not, known or new, in any company: representations as without."""
    texts = collator.texts(["w1 w2 w3", "w4", "w5 w6", "w1 w2 w3", "w7 w8 w9"], "passage")
    plain = model(texts.ids, texts.mask)
    states = FrozenStates()
    states.serve(model, FROZEN.model_copy(update={"frozen": frozen}), "no")
    for rows in ([1], [0, 1], [0, 4], [1, 2], [0, 1, 2, 3, 4]):
        mask = texts.mask[rows]
        got = model(texts.ids[rows], mask)
        assert torch.allclose(got.dense, plain.dense[rows], atol=1e-6)
        for part, whole in ((got.sparse, plain.sparse), (got.multivector, plain.multivector)):
            assert torch.allclose(part[mask], whole[rows][mask], atol=1e-6)
    assert len(states) == 4


@pytest.mark.parametrize("cache", ["true", "false"])
def test_a_run_learns_the_same(recipe, tmp_path, passes, cache):
    """Epochs after the first, and a second run, do not go through the frozen layer again."""
    names = ("plain", "first", "second")
    states = FrozenStates()
    calls = []
    for name in names:
        passes.clear()
        overrides = (f"output={tmp_path / name}", f"run.gradient_cache={cache}")
        train(recipe(*overrides), frozen=None if name == "plain" else states)
        calls.append(sorted(passes.values()))
    logs = [read_log(tmp_path / name / "log.jsonl") for name in names]
    for log in logs[1:]:
        assert [line["loss"] for line in log] == pytest.approx(
            [line["loss"] for line in logs[0]], rel=1e-4
        )
    plain, *others = (load_file(tmp_path / name / "last/model.safetensors") for name in names)
    for weights in others:
        learnt = [
            name for name in plain if "key.bias" not in name
        ]  # its gradient is rounding alone
        assert all(torch.allclose(weights[name], plain[name], atol=1e-5) for name in learnt)
    of_plain, of_first, of_second = calls
    assert of_plain[0] == of_plain[1]
    assert of_first[0] < of_first[1] / 2
    assert len(of_second) == 1  # the layer that learns


def test_a_step_moves_nothing_that_is_remembered(recipe, tmp_path, checkpoint):
    """What is frozen stays, to the bit, and what learns moves."""
    folder = train(recipe(f"output={tmp_path / 'run'}"), frozen=FrozenStates())
    before = load_file(checkpoint / "model.safetensors")
    after = load_file(folder / "model.safetensors")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert not [name for name in moved if ".0." in name or "embeddings" in name]
    assert [name for name in moved if ".1." in name]


def test_what_cannot_be_remembered_is_refused(model, recipe, tmp_path):
    """Nothing frozen, dropout, other layers, another precision, another model, another task."""
    states = FrozenStates()
    with pytest.raises(ConfigError, match='set frozen = "embeddings"'):
        states.serve(model, ModelTable(name="tiny"), "no")
    with pytest.raises(ConfigError, match=r"set dropout = 0.0"):
        train(recipe(f"output={tmp_path / 'run'}", "model.dropout=0.1"), frozen=states)
    states.serve(model, FROZEN, "no")
    with pytest.raises(ConfigError, match="other frozen layers"):
        states.serve(model, FROZEN.model_copy(update={"frozen_layers": 2}), "no")
    with pytest.raises(ConfigError, match="another precision"):
        states.serve(model, FROZEN, "bf16")
    with torch.no_grad():
        model.backbone.encoder["layer"][0].output.dense.bias[0] += 1e-3
    with pytest.raises(ConfigError, match="other frozen layers"):
        states.serve(model, FROZEN, "no")
    pretraining = RetroMaeRecipe(
        stage="retromae",
        output=tmp_path,
        model="tiny",
        texts=("t",),
        optimizer=OptimizerTable(learning_rate=1),
    )
    with pytest.raises(ConfigError, match="RetroMAE freezes nothing"):
        train(pretraining, frozen=states)
