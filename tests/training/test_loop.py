"""Whole runs on the tiny model."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from m3connect.errors import CheckpointError, ConfigError, InputError, M3ConnectError
from m3connect.model.checkpoint import open_checkpoint
from m3connect.model.weights import load_model
from m3connect.training.log import read_log, write_report
from m3connect.training.loop import train

SETTINGS = (
    "batching.negatives=2",
    "optimizer.epochs=2",
    "run.sub_batch_tokens=120",
    "run.checkpoint_every=4",
)


def weights(folder):
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def trained():
    """What :func:`plain` keeps."""
    return {}


@pytest.fixture
def plain(recipe, tmp_path, trained):
    """The folder of the toy run as it is, which several tests compare with: trained once."""
    if not trained:
        train(recipe(f"output={tmp_path}/plain"))
        trained["folder"] = tmp_path / "plain"
    return trained["folder"]


@pytest.mark.slow
def test_a_run_learns_and_leaves_a_checkpoint(recipe, tmp_path):
    """The loss falls, the log has a line a step, and the result opens as a model."""
    told = []
    folder = train(
        recipe("optimizer.epochs=8", "objective.self_distill_from=3"),
        progress=lambda *what: told.append(what),
    )
    assert told == [("steps", step, len(told)) for step in range(1, len(told) + 1)]
    log = read_log(tmp_path / "run/log.jsonl")
    assert [entry["step"] for entry in log] == list(range(1, len(log) + 1))
    assert log[-1]["loss"] < 0.5 * log[0]["loss"]
    assert {"dense", "sparse", "multivector", "integrated", "grad_norm"} <= set(log[0])
    assert "distilled" not in log[2]
    assert "distilled" in log[3]
    checkpoint = open_checkpoint(folder)
    load_model(checkpoint)
    assert checkpoint.config.weights_hash != "random"


@pytest.mark.slow
def test_a_full_disk_is_said_and_costs_no_checkpoint(recipe, plain, little_room):
    """The message names the folder and what to do; with room the run goes on bit for bit."""
    whole = weights(plain / "last")

    def fill(trainable):
        little_room(20_000)  # enough for the log
        return {"all": 0.5}

    measured = ["evaluation.datasets=['none']", "evaluation.every=6", "evaluation.mode=all"]
    with pytest.raises(M3ConnectError, match=r"run/best.* could not be written .* Make room"):
        train(recipe(*measured), evaluate=fill)
    with pytest.raises(M3ConnectError, match=r"step-000008.* could not be written .* Make room"):
        train(recipe(), resume=True)
    little_room(1_000_000_000)
    resumed = weights(train(recipe(), resume=True))
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())


@pytest.mark.slow
def test_an_interrupted_run_goes_on_bit_for_bit(recipe, tmp_path):
    """A run that stopped and was resumed ends with the weights of one that was not."""
    dropout = "model.dropout=0.2"
    whole = weights(train(recipe(dropout, f"output={tmp_path}/whole")))

    def interrupt(trainable):
        raise KeyboardInterrupt

    measured = ["evaluation.datasets=['none']", "evaluation.every=6"]
    broken = recipe(dropout, *measured)
    with pytest.raises(KeyboardInterrupt):
        train(broken, evaluate=interrupt)
    assert sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir()) == [
        "step-000000",
        "step-000004",
    ]
    resumed = weights(train(recipe(dropout), resume=True))
    assert resumed.keys() == whole.keys()
    for name, tensor in whole.items():
        assert torch.equal(resumed[name], tensor), name


def test_a_checkpoint_holds_what_moves(recipe, checkpoint, tmp_path):
    """With a frozen encoder it holds the heads alone, and the run still goes on bit for bit."""
    frozen = ["model.frozen='encoder'", "model.multivector_width=4"]
    whole = weights(train(recipe(*frozen, f"output={tmp_path}/whole")))

    def interrupt(trainable):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            recipe(*frozen, "evaluation.datasets=['x']", "evaluation.every=6"), evaluate=interrupt
        )
    (saved,) = (tmp_path / "run/checkpoints").glob("step-000004/*.safetensors")
    assert {name.split(".")[-2] for name in load_file(saved)} == {"sparse_linear", "colbert_linear"}
    resumed = weights(train(recipe(*frozen), resume=True))
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())


def test_a_run_goes_on_from_its_own_model_only(recipe, checkpoint):
    """What a checkpoint leaves out is read from the model: another one under its name is refused."""
    train(recipe("optimizer.steps=2", "model.frozen='encoder'"))
    config = json.loads((checkpoint / "m3.json").read_text())
    (checkpoint / "m3.json").write_text(json.dumps(config | {"weights_hash": "other"}))
    with pytest.raises(ConfigError, match="model has other now"):
        train(recipe("optimizer.steps=4", "model.frozen='encoder'"), resume=True)


@pytest.mark.parametrize(
    "settings",
    [
        ["run.gradient_cache=false"],
        pytest.param(["run.gradient_checkpointing=true"], marks=pytest.mark.slow),
    ],
)
def test_memory_savers_change_no_step(recipe, plain, tmp_path, settings):
    """Without the cache, or with layers computed again, every step has the same loss and gradient."""
    train(recipe(*settings))
    log, other = (read_log(folder / "log.jsonl") for folder in (plain, tmp_path / "run"))
    for name in ("loss", "grad_norm"):
        expected = [entry[name] for entry in log]
        assert [entry[name] for entry in other] == pytest.approx(expected, rel=1e-3)


def test_accumulated_batches_make_one_step(recipe, plain, tmp_path):
    """A step takes two batches of an epoch's seven; the odd one is left out."""
    train(recipe("optimizer.accumulate=2"))
    single, double = (read_log(folder / "log.jsonl") for folder in (plain, tmp_path / "run"))
    assert [len(single), len(double)] == [14, 6]
    assert double[0]["tokens"] == single[1]["tokens"]


def test_no_steps_start_the_heads_alone(recipe, checkpoint):
    """With 0 steps the encoder stays, a head that starts anew is there, and the report is drawn."""
    plan = recipe("optimizer.steps=0", "model.sparse_head='ridge'")
    before, after = weights(checkpoint), weights(train(plan))
    moved = {name for name, tensor in before.items() if not torch.equal(after[name], tensor)}
    assert moved == {"sparse_linear.weight", "sparse_linear.bias"}
    assert "0 steps, 0 tokens" in write_report(plan).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("settings", "still"),
    [
        pytest.param(["model.frozen='embeddings'"], ("embeddings.",), marks=pytest.mark.slow),
        pytest.param(
            ["model.frozen='encoder'"], ("embeddings.", "encoder."), marks=pytest.mark.slow
        ),
        (
            ["model.frozen='embeddings'", "model.frozen_layers=1"],
            ("embeddings.", "encoder.layer.0"),
        ),
        pytest.param(
            ["objective.legs=['dense']"],
            ("sparse_linear", "colbert_linear"),
            marks=pytest.mark.slow,
        ),
        (
            ["objective.legs=['sparse']", "model.frozen='encoder'"],
            ("embeddings.", "encoder.", "colbert_linear"),
        ),
    ],
)
def test_what_is_frozen_stays(recipe, checkpoint, settings, still):
    """Frozen parts and heads without a loss keep their values; all layers and heads else move."""
    before, after = weights(checkpoint), weights(train(recipe(*settings)))
    moved = {name for name, tensor in before.items() if not torch.equal(after[name], tensor)}
    assert not {name for name in moved if name.startswith(still)}
    matrices = {name for name in before if name.endswith("weight") and "LayerNorm" not in name}
    learning = {name for name in matrices if not name.startswith((*still, "embeddings"))}
    assert learning
    assert learning <= moved


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (["model.name=nowhere"], ConfigError, "no model 'nowhere'"),
        (["data=[{path='none.jsonl'}]"], InputError, "none.jsonl: no such file"),
        (["batching.sizes=100"], InputError, "48 examples do not fill a batch of 100 .*sizes"),
        (["batching.passage_length=33", "batching.edges=[33]"], ConfigError, "from 3 to 32 tokens"),
        (["model.multivector_width=9"], ConfigError, "wider than the head's 8"),
        (["model.frozen='embeddings'", "model.frozen_layers=3"], ConfigError, "has 2 layers"),
        (["objective.matryoshka=[32]"], ConfigError, "the dense vector has 16 values"),
        (["optimizer.accumulate=50"], InputError, "lower optimizer.accumulate"),
        (
            [
                "model.start='base'",
                "model.sparse_head='ridge'",
                "model.multivector_head='identity'",
            ],
            ConfigError,
            "no trained part of its own",
        ),
        (["model.frozen='encoder'", "objective.legs=['dense']"], ConfigError, "freezes everything"),
    ],
)
def test_a_bad_recipe_fails_before_the_first_step(recipe, tmp_path, settings, error, message):
    """What is wrong is found before anything is trained, and the message says what to change."""
    with pytest.raises(error, match=message):
        train(recipe(*settings))
    assert not (tmp_path / "run/log.jsonl").exists()


def test_a_missing_head_is_never_random(recipe, checkpoint):
    """A checkpoint without its lexical head is refused."""
    tensors = {name: value for name, value in weights(checkpoint).items() if "sparse" not in name}
    save_file(tensors, checkpoint / "model.safetensors")
    with pytest.raises(CheckpointError, match="sparse_linear"):
        train(recipe())


def test_an_output_folder_holds_one_run(recipe):
    """A second run neither mixes with the first nor replaces it; another recipe cannot resume it."""
    train(recipe("optimizer.steps=1"))
    with pytest.raises(ConfigError, match="already holds a run"):
        train(recipe("optimizer.steps=1"))
    with pytest.raises(ConfigError, match="another seed"):
        train(recipe("optimizer.steps=1", "seed=5"), resume=True)


def test_a_run_that_never_began_claims_no_folder(recipe, tmp_path):
    """What was refused before the first step is mended and run in the same folder."""
    with pytest.raises(InputError, match="do not fill a batch"):
        train(recipe("batching.sizes=999"))
    assert train(recipe("optimizer.steps=1")) == tmp_path / "run/last"


def test_a_run_may_be_shortened(recipe, tmp_path):
    """Resumed with fewer steps, a run ends there with a learning rate that fell towards 0."""

    def interrupt(trainable):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe("evaluation.datasets=['x']", "evaluation.every=5"), evaluate=interrupt)
    train(recipe("optimizer.steps=6"), resume=True)
    log = read_log(tmp_path / "run/log.jsonl")
    assert log[-1]["step"] == 6
    assert log[-1]["learning_rate"] < 0.3 * log[3]["learning_rate"]


def change_state(folder, change):
    """Change the counters that a run's last checkpoint holds."""
    file = max(folder.glob("checkpoints/*")) / "custom_checkpoint_1.pkl"
    state = torch.load(file, weights_only=True)
    change(state)
    torch.save(state, file)


def test_the_first_epoch_tells_how_long_a_run_is(recipe, examples, tmp_path):
    """Epochs of 5, 4 and 4 batches: resumed in the second, it still has twice the first one's."""
    records = [json.loads(line) for line in examples.read_text().splitlines()]
    for record in records:  # a short positive or a long one is drawn
        record |= {"pos": [record["pos"][0], record["pos"][0] + " w1" * 20], "pos_scores": None}
    examples.write_text("".join(json.dumps(record) + "\n" for record in records))
    settings = [
        "seed=8",
        "batching.sizes=9",
        "batching.smallest=9",
        "batching.negatives=0",
        "batching.edges=[16, 32]",
        "model.frozen='encoder'",
        "run.checkpoint_every=6",
    ]
    whole = weights(train(recipe(*settings, f"output={tmp_path}/whole")))
    log = read_log(tmp_path / "whole/log.jsonl")
    assert [entry["epoch"] for entry in log] == [0] * 5 + [1] * 4 + [2]

    def interrupt(trainable):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            recipe(*settings, "evaluation.datasets=['x']", "evaluation.every=7"), evaluate=interrupt
        )
    resumed = weights(train(recipe(*settings), resume=True))
    assert len(read_log(tmp_path / "run/log.jsonl")) == 10
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())


def test_a_run_goes_on_in_as_many_processes_as_it_began(recipe, tmp_path):
    """Its plan is for so many: another number is refused and told; older checkpoints know none."""
    frozen = "model.frozen='encoder'"
    train(recipe("optimizer.steps=2", frozen))
    change_state(tmp_path / "run", lambda state: state.update(processes=4))
    with pytest.raises(
        ConfigError, match="began with 4 processes, and now it has 1: resume it with 4"
    ):
        train(recipe("optimizer.steps=4", frozen), resume=True)

    def make_older(state):
        del state["processes"], state["batches"]

    change_state(tmp_path / "run", make_older)
    train(recipe("optimizer.steps=4", frozen), resume=True)
    assert read_log(tmp_path / "run/log.jsonl")[-1]["step"] == 4


def test_a_million_steps_are_after_the_others(recipe, tmp_path):
    """The last checkpoint is that of the most steps, and one with a longer name is a run's, too."""
    short = ["model.frozen='encoder'", "run.checkpoint_every=1", "run.keep=9"]
    train(recipe("optimizer.steps=2", *short))
    folder = tmp_path / "run/checkpoints"
    (folder / "step-000001").rename(folder / "step-999999")
    (folder / "step-000002").rename(folder / "step-1000000")
    (tmp_path / "run/log.jsonl").unlink()
    train(recipe("optimizer.steps=3", *short), resume=True)
    assert [entry["step"] for entry in read_log(tmp_path / "run/log.jsonl")] == [3]
    (tmp_path / "run/log.jsonl").unlink()
    for name in ("step-000000", "step-000003", "step-999999"):
        shutil.rmtree(folder / name)
    with pytest.raises(ConfigError, match="already holds a run"):
        train(recipe(*short))


def test_nothing_to_resume_is_an_error(recipe):
    """Resuming needs a run."""
    with pytest.raises(ConfigError, match="no run to resume"):
        train(recipe(), resume=True)


def test_the_best_model_is_kept_and_patience_ends_the_run(recipe, tmp_path):
    """The best measured weights are the result; two measurements without gain stop the run."""
    scores = iter([0.1, 0.5, 0.4, 0.5, 0.9])
    seen = []

    def evaluate(trainable):
        seen.append(trainable.model.heads.sparse_linear.bias.item())
        return {"all": next(scores)}

    settings = ["evaluation.datasets=['x']", "evaluation.every=2", "evaluation.patience=2"]
    folder = train(recipe(*settings), evaluate=evaluate)
    assert folder == tmp_path / "run/best"
    assert len(seen) == 4
    assert weights(folder)["sparse_linear.bias"].item() == seen[1]
    log = read_log(tmp_path / "run/log.jsonl")
    assert [entry["dev_all"] for entry in log if "dev_all" in entry] == [0.1, 0.5, 0.4, 0.5]


def test_a_dying_sparse_head_is_reported(recipe, checkpoint, caplog):
    """Passages without lexical terms raise an alarm that names the remedies."""
    tensors = weights(checkpoint)
    tensors["sparse_linear.bias"] = torch.tensor([-9.0])
    save_file(tensors, checkpoint / "model.safetensors")
    train(recipe("optimizer.steps=1"))
    assert "sparse head is dying" in caplog.text


@pytest.mark.slow
def test_matryoshka_trains_narrow_dense_vectors(recipe, tmp_path):
    """The loss of the first values alone is there and falls."""
    train(recipe("objective.matryoshka=[4, 8]", "optimizer.epochs=3"))
    log = read_log(tmp_path / "run/log.jsonl")
    assert log[-1]["dense_4"] < log[0]["dense_4"]


def test_teacher_scores_are_used(recipe, tmp_path):
    """Both forms of distillation from the data's scores train, and change the loss."""
    losses = set()
    for form in ("none", "kl", "m3"):
        train(recipe(f"objective.teacher={form}", f"output={tmp_path}/{form}", "optimizer.steps=2"))
        losses.add(round(read_log(tmp_path / form / "log.jsonl")[0]["loss"], 4))
    assert len(losses) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batching.size=8", "batching.size: Extra inputs"),
        ("batching.tokens=8", "either sizes or tokens"),
        ("batching.edges=[32, 8]", "must rise"),
        ("batching.in_batch=false", None),
        ("objective.temperature=0", "objective.temperature"),
        ("objective.legs=['dense', 'dense']", "each trained representation once"),
        ("optimizer", "expected table.key=value"),
    ],
)
def test_a_recipe_is_checked_as_it_is_read(recipe, text, message):
    """Unknown keys and values that make no sense are named; what is fine is taken."""
    if message is None:
        assert recipe(text).batching.in_batch is False
        return
    with pytest.raises(ConfigError, match=message):
        recipe(text)


def test_a_key_without_a_value_is_left_out(recipe):
    """Overriding a key with nothing gives it its default again; TOML has no null."""
    assert recipe("objective.self_distill_from=3").objective.self_distill_from == 3
    both = recipe("objective.self_distill_from=3", "objective.self_distill_from=")
    assert both.objective.self_distill_from is None
    assert recipe("optimizer.epochs=", "optimizer.momentum=").optimizer.epochs == 1


def test_the_seed_decides(recipe, tmp_path):
    """The same recipe gives the same weights; another seed gives others."""
    first, again, other = (
        weights(train(recipe(f"output={tmp_path}/{name}", f"seed={seed}", "optimizer.steps=2")))
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    name = "encoder.layer.0.output.dense.weight"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])
