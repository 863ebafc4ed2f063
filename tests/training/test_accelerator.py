"""Trackers and precision, through accelerate."""

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer

from m3connect.errors import ConfigError
from m3connect.training import distributed
from m3connect.training.log import read_log
from m3connect.training.loop import train

SETTINGS = ("optimizer.steps=4",)


@pytest.mark.slow
def test_tensorboard_gets_what_the_log_gets(recipe, tmp_path):
    """Every figure of every line is in the event file, and the recipe is there as hyper-parameters."""
    measured = ["evaluation.datasets=['x']", "evaluation.every=4"]
    plan = recipe("run.trackers=['tensorboard']", *measured)
    train(plan, evaluate=lambda trainable: {"all": 0.25})
    folder = tmp_path / "run/trackers/m3connect"
    events = EventAccumulator(str(folder))
    events.Reload()
    found = {
        (name, event.step): event.value
        for name in events.Tags()["scalars"]
        for event in events.Scalars(name)
    }
    expected = {
        (name, entry["step"]): value
        for entry in read_log(tmp_path / "run/log.jsonl")
        for name, value in entry.items()
        if name != "step"
    }
    assert ("loss", 4) in expected
    assert expected["dev_all", 4] == 0.25
    assert found == {key: pytest.approx(value, rel=1e-6) for key, value in expected.items()}
    assert hyper_parameters(folder)["optimizer.learning_rate"] == 3e-3


def hyper_parameters(folder):
    """What TensorBoard shows as a run's hyper-parameters."""
    from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    runs = EventMultiplexer()
    runs.AddRunsFromDirectory(str(folder))
    runs.Reload()
    (content,) = [
        found[SESSION_START_INFO_TAG]
        for found in runs.PluginRunToTagToContent("hparams").values()
        if SESSION_START_INFO_TAG in found
    ]
    stored = HParamsPluginData.FromString(content).session_start_info.hparams
    return {name: value.number_value or value.string_value for name, value in stored.items()}


@pytest.mark.parametrize(
    ("tracker", "line"),
    [("tensorboard", r'pip install "m3connect\[tensorboard\]"'), ("wandb", "pip install wandb")],
)
def test_a_missing_tracker_shows_the_pip_line(recipe, tmp_path, monkeypatch, tracker, line):
    """A tracker that is not installed ends the run before it claims its folder."""
    monkeypatch.setattr(distributed, "get_available_trackers", list)
    with pytest.raises(ConfigError, match=line):
        train(recipe(f"run.trackers=['{tracker}']"))
    assert not (tmp_path / "run").exists()


@pytest.fixture
def fresh_state():
    """accelerate keeps one precision a process: forget it before and after."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("cache", ["true", "false"])
def test_bfloat16_is_near_float32(recipe, tmp_path, fresh_state, cache):
    """Losses are finite and within 3 %, gradient norms within 15 %; the saved model is float32."""
    settings = [f"run.gradient_cache={cache}", "objective.self_distill_from=2"]
    train(recipe(f"output={tmp_path}/single", *settings))
    AcceleratorState._reset_state(reset_partial_state=True)
    half = train(recipe("run.precision=bf16", *settings))
    logs = [read_log(tmp_path / name / "log.jsonl") for name in ("single", "run")]
    for single, other in zip(*logs, strict=True):
        assert other["loss"] == pytest.approx(single["loss"], rel=0.03)
        assert other["grad_norm"] == pytest.approx(single["grad_norm"], rel=0.15)
    assert logs[0][0]["loss"] != logs[1][0]["loss"]
    tensors = load_file(half / "model.safetensors").values()
    assert {tensor.dtype for tensor in tensors} == {torch.float32}


@pytest.mark.skipif(torch.accelerator.is_available(), reason="float16 needs a GPU, and has one")
def test_float16_is_refused_on_a_cpu(recipe, tmp_path):
    """accelerate would train in float32 and say nothing; the run ends before it claims its folder."""
    with pytest.raises(ConfigError, match='fp16" needs a GPU: set "bf16"'):
        train(recipe("run.precision=fp16"))
    assert not (tmp_path / "run").exists()


def test_what_accelerate_cannot_shard_is_refused(recipe, tmp_path, monkeypatch, fresh_state):
    """A model that would stay whole though sharding was asked for is an error."""
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match="leave out --use_fsdp"):
        train(recipe())
    assert not (tmp_path / "run").exists()


def test_who_plans_has_the_cores_of_those_that_wait(monkeypatch):
    """As many threads as all processes of the machine together, until the plan is made."""
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    before = torch.get_num_threads()
    with distributed.idle_cores():
        assert torch.get_num_threads() == 2 * before
    assert torch.get_num_threads() == before
