"""A recipe's [evaluation] table is honoured from Python, or the run says that it cannot be."""

import pytest

import m3connect
from m3connect.errors import ConfigError, InputError
from m3connect.searching.names import MODES
from m3connect.training.log import read_log
from m3connect.training.loop import train
from m3connect.training.measuring import make_evaluate

pytestmark = pytest.mark.usefixtures("empty_charts")

SETTINGS = ("optimizer.learning_rate=1e-3", "optimizer.steps=4", "run.sub_batch_tokens=100000")
MEASURED = ("evaluation.datasets=['dev']", "evaluation.every=2", "evaluation.queries=10")


def test_train_measures_what_the_recipe_asks_for(recipe, development, tmp_path):
    """From Python a run measures every mode on its way, keeps the best model and draws its page."""
    folder = m3connect.train(recipe(*MEASURED))
    measured = [entry for entry in read_log(tmp_path / "run/log.jsonl") if "dev_all" in entry]
    assert [entry["step"] for entry in measured] == [2, 4]
    assert len(measured[0]) == 1 + len(MODES)
    assert folder == tmp_path / "run/best"
    assert "nDCG@10 on the development sets" in (tmp_path / "run/report.html").read_text()


@pytest.mark.slow
def test_train_takes_a_file(recipe_file, tmp_path):
    """A recipe may be named by its file."""
    assert m3connect.train(str(recipe_file)) == tmp_path / "run/last"


def test_a_table_that_nothing_measures_is_refused(recipe, development, tmp_path):
    """The bare loop does not skip the table in silence; it says who measures."""
    with pytest.raises(ConfigError, match=r"nothing that measures .* m3connect\.train"):
        train(recipe(*MEASURED))
    assert not (tmp_path / "run").exists()


def test_a_missing_development_set_ends_the_run_before_its_first_step(recipe, tmp_path):
    """What would fail at the first measurement fails at once, and claims no folder."""
    with pytest.raises(InputError, match="none"):
        m3connect.train(recipe("evaluation.datasets=['none']", "evaluation.every=2"))
    assert not (tmp_path / "run").exists()


def test_several_sets_count_the_same(recipe, development, tmp_path):
    """The figure of a mode is the mean over the sets, however many queries each has, and however named."""
    (tmp_path / "other").symlink_to(tmp_path)
    plan = recipe("evaluation.datasets=['dev', 'other/dev']", "evaluation.every=2")
    figures = iter([{"all": 0.2}, {"all": 0.6}])
    evaluate = make_evaluate(plan, lambda trainable, dataset, modes: next(figures))
    assert evaluate(None) == {"all": pytest.approx(0.4)}
    assert make_evaluate(recipe(), lambda *_: {}) is None


def test_a_resumed_run_measures_as_many_as_it_now_asks_for(recipe, development, tmp_path):
    """Copies of another size, which the first part of the run made, are not taken for the new ones."""
    sizes = []

    def measure(trainable, dataset, modes):
        sizes.append((len(dataset.queries), len(dataset.ids)))
        return {"all": 0.5}

    for queries, documents in ((10, 20), (15, 30)):
        overrides = (f"evaluation.queries={queries}", f"evaluation.documents={documents}")
        make_evaluate(recipe(*MEASURED, *overrides), measure)(None)
    assert sizes == [(10, 20), (15, 30)]
