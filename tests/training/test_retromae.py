"""RetroMAE pre-training and longer positions."""

import json

import numpy as np
import pytest
import torch

from m3connect.errors import ConfigError, InputError
from m3connect.model.checkpoint import open_checkpoint
from m3connect.model.weights import load_model
from m3connect.training.estimate import forecast
from m3connect.training.log import read_log
from m3connect.training.loop import train
from m3connect.training.recipe import RetroMaeRecipe
from m3connect.training.retromae import IGNORED, MaskedTexts, RetroMae, RetroMaeModel
from m3connect.training.surgery import extend_positions


@pytest.fixture
def recipe(tmp_path, checkpoint, tokenizer):
    """A function that makes a toy recipe; texts are runs of consecutive words."""
    content = json.loads(tokenizer.to_str())
    vocabulary = content["model"]["vocab"]
    vocabulary["<mask>"] = vocabulary.pop("w59")
    (checkpoint / "tokenizer.json").write_text(json.dumps(content))
    rng = np.random.default_rng(0)
    with (tmp_path / "texts.jsonl").open("w") as lines:
        for number in range(40):
            start = rng.integers(30)
            words = [f"w{start + at}" for at in range(4 + number % 20)]
            lines.write(json.dumps({"text": " ".join(words)}) + "\n")
    values = {
        "stage": "retromae",
        "output": tmp_path / "run",
        "model": str(checkpoint),
        "texts": (str(tmp_path / "texts.jsonl"),),
        "max_length": 32,
        "edges": (12, 64),
        "sizes": 8,
        "optimizer": {"learning_rate": 1e-2, "epochs": 20, "weight_decay": 0.0},
        "run": {"log_every": 1},
    }
    return lambda **changes: RetroMaeRecipe(**values | changes)


@pytest.mark.slow
def test_pre_training_learns_to_name_hidden_tokens(recipe, tmp_path, checkpoint):
    """Both losses fall; the encoder has moved, the heads have not, and the result opens."""
    folder = train(recipe())
    log = read_log(tmp_path / "run/log.jsonl")
    assert log[-1]["encoder"] < 0.8 * log[0]["encoder"]
    assert log[-1]["decoder"] < 0.8 * log[0]["decoder"]
    before, after = (load_model(open_checkpoint(path)).tensors() for path in (checkpoint, folder))
    assert torch.equal(before["sparse_linear.weight"], after["sparse_linear.weight"])
    name = "encoder.layer.1.output.dense.weight"
    assert not torch.equal(before[name], after[name])


def test_the_seed_decides_where_the_heads_start(recipe, tmp_path):
    """Whatever was drawn before: the same seed has the same first losses, another one has others."""
    found = []
    for number, seed in enumerate((0, 0, 1)):
        torch.manual_seed(number)
        output = tmp_path / str(number)
        train(recipe(output=output, seed=seed, optimizer={"learning_rate": 1e-3, "steps": 1}))
        (entry,) = read_log(output / "log.jsonl")
        found.append((entry["encoder"], entry["decoder"]))
    assert found[0] == found[1] != found[2]


def test_longer_texts_than_the_model_took(recipe, checkpoint):
    """Training at twice the length leaves a model that takes it."""
    folder = train(recipe(max_length=64, optimizer={"learning_rate": 1e-3, "steps": 2}))
    model = load_model(open_checkpoint(folder))
    assert model.config.max_length == 64
    assert model(torch.zeros(1, 64, dtype=torch.long)).dense.isfinite().all()


def test_new_positions_repeat_the_old_ones(model):
    """Short texts are read as before; position i of the longer model is position i mod 32."""
    ids = torch.randint(4, 60, (1, 20))
    before = model.eval()(ids).dense
    extend_positions(model, 70)
    torch.testing.assert_close(model(ids).dense, before)
    rows = model.backbone.embeddings.position_embeddings.weight[2:]
    assert torch.equal(rows[32:64], rows[:32])
    assert len(rows) == 70


def test_hidden_tokens_are_never_special_and_change_every_epoch(recipe):
    """About the asked share is hidden; begin, end and padding are not; epochs draw anew."""
    task = RetroMae(recipe())
    plan = task.plan(0, 1)
    batches = [[task.batch(planned, epoch, 0, 1) for planned in plan] for epoch in (0, 0, 1)]
    first, again, other = ([batch.labels for batch in epoch] for epoch in batches)
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not all(torch.equal(one, two) for one, two in zip(first, other, strict=True))
    hidden = torch.cat([labels[labels != IGNORED] for labels in first])
    tokens = sum(int((batch.ids > 3).sum()) for batch in batches[0])
    assert hidden.min() > 3
    assert 0.2 < len(hidden) / tokens < 0.4


def test_the_decoder_does_not_see_the_token_it_names(model):
    """Another token at a place changes what is decoded elsewhere, never what is decoded there."""
    torch.manual_seed(0)
    decoder = RetroMaeModel(model, 0.5).double().eval().decoder
    ids = torch.tensor([[0, 5, 6, 7, 8, 9, 2]])
    changed = ids.clone()
    changed[0, 3] = 20
    found = []
    for content in (ids, changed):
        torch.manual_seed(1)
        texts = MaskedTexts(content, content, content, content >= 0)
        found.append(decoder(torch.ones(1, 16).double(), texts, model.backbone.double()))
    moved = (found[0] - found[1]).abs().amax(-1)[0]
    assert moved[3] == 0
    assert moved.max() > 0


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_the_decoder_knows_a_text_by_the_state_that_is_served(model, pooling):
    """The first token's, or the mean of all, as the model has it; never padding's."""
    model.heads.pooling = pooling
    task = RetroMaeModel(model, 0.5).eval()
    given = []
    task.decoder.register_forward_pre_hook(lambda _, args: given.append(args[0]))
    ids = torch.tensor([[0, 5, 6, 7, 2], [0, 8, 2, 1, 1]])
    texts = MaskedTexts(ids, ids, ids, ids != 1)
    task(texts)
    dense = torch.nn.functional.normalize(given[0], dim=-1)
    torch.testing.assert_close(dense, model(ids, texts.mask).dense)


def test_a_tokenizer_without_a_mask_is_refused(recipe, checkpoint):
    """RetroMAE needs a token that hides others."""
    path = checkpoint / "tokenizer.json"
    path.write_text(path.read_text().replace("<mask>", "w59"))
    with pytest.raises(ConfigError, match="neither <mask> nor"):
        RetroMae(recipe())


def test_a_record_without_text_is_named(recipe, tmp_path):
    """The message says which line of which file."""
    (tmp_path / "texts.jsonl").write_text('{"text": "w1"}\n{"body": "w2"}\n')
    with pytest.raises(InputError, match=r"texts.jsonl:2: 'text' must hold a string"):
        train(recipe())


def test_a_dry_run_plans_and_trains_nothing(recipe, tmp_path):
    """Texts by file and length, steps and tokens are those of the run that follows."""
    plan = recipe(optimizer={"learning_rate": 1e-3, "epochs": 2})
    found = forecast(plan)
    assert not (tmp_path / "run").exists()
    assert [(line.longest, line.examples) for line in found.lines] == [(12, 14), (64, 26)]
    assert found.seconds > 0
    train(plan)
    log = read_log(tmp_path / "run/log.jsonl")
    assert found.steps == len(log)
    assert found.tokens == pytest.approx(log[-1]["tokens"], rel=0.01)


def test_estimated_memory_is_near_what_is_kept(recipe):
    """The estimate of a batch's activations is within a third of what autograd keeps."""
    plan = recipe(sizes=40, edges=(32,))
    estimate = forecast(plan).memory["activations"]
    task, kept = RetroMae(plan), {}
    (planned,) = task.plan(0, 1)

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = task.module.train()(task.batch(planned, 0, 0, 1))
    weights = {weight.untyped_storage().data_ptr() for weight in task.module.parameters()}
    assert estimate == pytest.approx(
        sum(size for place, size in kept.items() if place not in weights), rel=0.35
    )
    assert losses[0] > 0


def test_only_tokens_that_are_seen_are_told_apart(recipe, tmp_path, model):
    """Losses and gradients are those of the whole vocabulary in which the others have no chance."""
    task = RetroMae(recipe(vocabulary="seen"))
    assert isinstance(task.module, RetroMaeModel)
    seen, batch = task.module.seen, task.batch(task.plan(0, 1)[0], 0, 0, 1)
    assert seen is not None
    assert set(batch.ids[batch.mask].tolist()) < set(seen.tolist()) < set(range(task.vocabulary))
    narrow = RetroMaeModel(model, 0.5, seen)
    whole = RetroMaeModel(model, 0.5)
    with torch.no_grad():
        narrow.mlm_head.bias.normal_()
        state = narrow.state_dict()
        state["mlm_head.bias"] = whole.mlm_head.bias.fill_(-1e9).index_copy(
            0, seen, narrow.mlm_head.bias
        )
        whole.load_state_dict(state)
    found = []
    for module in (narrow, whole):
        torch.manual_seed(1)
        losses = module.eval()(batch)
        model.zero_grad()
        sum(losses).backward()
        gradient = model.backbone.embeddings.word_embeddings.weight.grad
        found.append((*losses, gradient.clone()))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
    assert found[0][2].abs().sum() > 0
    folder = train(recipe(vocabulary="seen", optimizer={"learning_rate": 1e-2, "steps": 4}))
    load_model(open_checkpoint(folder))
