"""A sweep's trials are what eval measures, its costs are counted, its frontier hides nothing that is better."""

import json
from dataclasses import replace

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from m3connect.cli.groups import expanded
from m3connect.cli.running import Services
from m3connect.cli.sweep import sweep as sweep_command
from m3connect.errors import ConfigError, InputError
from m3connect.evaluation import run
from m3connect.evaluation import sweep as evaluation_sweep
from m3connect.evaluation.significance import Interval
from m3connect.evaluation.sweep import FusionKind, Sweep, Trial, sweep
from m3connect.ingestion.chunking import Chunker
from m3connect.searching.modes import for_database, preset_for, with_fusion
from m3connect.searching.names import Mode
from m3connect.testing.fakes import HashEncoder

pytestmark = pytest.mark.usefixtures("empty_charts")

ENCODER = HashEncoder()


@pytest.fixture(autouse=True)
def few_are_timed(monkeypatch):
    """Times are not looked at here."""
    monkeypatch.setattr(evaluation_sweep, "TIMED", 1)


@pytest.fixture
def asked(dataset):
    """The small collection with its queries twice: enough to cross-validate."""
    again = tuple(replace(query, id=f"{query.id}-again") for query in dataset.queries)
    judged = {query.id: dataset.qrels[query.id.partition("-")[0]] for query in again}
    return replace(dataset, queries=dataset.queries + again, qrels={**dataset.qrels, **judged})


def test_trials_are_what_eval_measures(asked, tmp_path):
    """Every cut, mode, fusion and depth has the figures and the bytes of an evaluation with these options."""
    cuts = [None, Chunker(ENCODER, tokens=6)]
    modes: tuple[Mode, ...] = ("dense", "multivector", "all")
    found = sweep(asked, ENCODER, cuts, modes=modes, depths=(12, 25), cache=tmp_path)
    # whole: depths 12 and 25; cut into two passages each, 20 are asked for at least
    assert len(found.trials) == 2 * (1 + 2 * (1 + 2))
    for trial in found.trials:
        preset = preset_for(ENCODER.info)
        if trial.depth:
            kind: FusionKind = "rrf" if trial.fusion == "rrf" else "weighted"
            preset = for_database(with_fusion(preset, kind=kind), trial.depth)
        (row,) = run.evaluate(
            asked,
            ENCODER,
            modes=(trial.mode,),
            preset=preset,
            passages=None if trial.cut_as == "whole" else cuts[1],
            names=("ndcg@10",),
            cache=tmp_path,
        ).rows
        np.testing.assert_allclose(trial.figures, row.figures["ndcg@10"], atol=1e-12)
        assert trial.size == row.size
        assert trial.query > 0
        assert trial.encoding > 0


def test_the_best_on_all_is_no_promise(asked, tmp_path):
    """What folds choose is measured on what they have not seen: at most the best of all."""
    found = sweep(asked, ENCODER, [None], modes=("dense", "hybrid"), cache=tmp_path)
    assert found.unseen <= found.best.mean
    assert found.best.mean == max(trial.mean for trial in found.trials)


TRIALS = st.lists(
    st.builds(
        Trial,
        st.sampled_from(["whole", "64 tokens"]),
        st.just("dense"),
        st.just(""),
        st.integers(0, 99),
        st.integers(0, 5).map(lambda n: np.array([n / 5, 0.5])),
        *[st.integers(1, 5).map(lambda n: 10.0**n)] * 3,
    ),
    min_size=1,
    max_size=12,
)


@given(TRIALS)
def test_the_frontier_is_what_nothing_beats(trials):
    """Each trial left out has one on it that is as good at no higher cost; each on it has none."""
    found = Sweep("tiny", "ndcg@10", tuple(trials), 0.5, Interval(0.5, 0.4, 0.6))
    front = found.frontier()

    def beats(one, other):
        costs = [(one.size, other.size), (one.encoding, other.encoding), (one.query, other.query)]
        return one.mean >= other.mean and all(ours <= theirs for ours, theirs in costs)

    kept = {id(trial) for trial in front}
    for trial in trials:
        others = [each for each in front if each is not trial]
        assert any(beats(each, trial) for each in others) != (id(trial) in kept)


def test_cut_texts_are_reported(asked, tmp_path):
    """Documents of which the model reads the beginning alone are told, with how they were cut."""
    short = HashEncoder(max_length=6)
    cuts = [None, Chunker(short, tokens=4)]
    found = sweep(asked, short, cuts, modes=("dense",), cache=tmp_path)
    told = "36 of 36 documents are longer than the model reads and were cut"
    assert found.warnings == (told,)
    assert told in found.page()


def test_what_was_tried_twice_is_told_apart():
    """Two trials with the same settings and figures: one is on the frontier, the other is not."""
    once, again = (Trial("whole", "dense", "", 0, np.array([0.1, 0.2]), 1, 1, 1) for _ in range(2))
    found = Sweep("tiny", "ndcg@10", (once, again), 0.15, Interval(0.15, 0.1, 0.2))
    assert [trial["frontier"] for trial in found.to_json()["trials"]] == [True, False]


def test_too_few_queries_are_refused(dataset, tmp_path):
    """A choice among many settings needs queries."""
    with pytest.raises(InputError, match="has 12 queries; a choice among many settings needs 20"):
        sweep(dataset, ENCODER, [None], modes=("dense",), cache=tmp_path)


@pytest.fixture
def command(tmp_path):
    """Call the command with arguments."""
    app = typer.Typer()
    app.command()(expanded(sweep_command))
    services = Services(lambda *_, **__: None, lambda *_, **__: ENCODER)

    def call(*arguments):
        return CliRunner().invoke(
            app,
            [*map(str, arguments), "--cache", str(tmp_path / "cache")],
            catch_exceptions=False,
            obj=services,
        )

    return call


def test_the_command_prints_the_frontier_and_writes_a_page(command, folder, tmp_path):
    """The table, the page with its charts, and every trial as JSON."""
    with (
        (folder / "queries.jsonl").open("a") as queries,
        (folder / "qrels.tsv").open("a") as judged,
    ):
        for n in range(12):
            queries.write("\n" + json.dumps({"_id": f"x{n}", "text": f"tale{n + 12} story"}))
            judged.write(f"\nx{n}\td{n + 12}\t1")
    arguments = (
        "--dataset", folder, "--chunk-tokens", "whole,6", "--context", "none", "--modes", "dense,hybrid",
        "--depths", "50", "--output", tmp_path / "out",
    )  # fmt: skip
    outcome = command(*arguments)
    assert "| cut | mode | fusion | depth | ndcg@10 | bytes per document |" in outcome.stdout
    assert "6 settings tried on 24 queries" in outcome.stderr
    stored = json.loads((tmp_path / "out" / "sweep.json").read_text())
    cuts = {trial["cut_as"] for trial in stored["trials"]}
    assert cuts == {"whole", "6 tokens, overlap 0, context none"}
    assert any(trial["frontier"] for trial in stored["trials"])
    page = (tmp_path / "out" / "sweep.html").read_text()
    assert page.count("<svg") == 3
    for wrong in (["--chunk-tokens", "many"], ["--fusions", "max"], ["--dataset", folder / "x"]):
        with pytest.raises(ConfigError):
            command(*arguments, *wrong)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--chunk-tokens", "", "--chunk-tokens names none"),
        ("--chunk-tokens", "64.9", "--chunk-tokens takes whole numbers of at least 1; got '64.9'"),
        ("--chunk-overlap", "-1", "--chunk-overlap takes whole numbers of at least 0"),
        ("--depths", "50.9,-3", "--depths takes whole numbers of at least 1"),
        ("--fusions", "", "--fusions names none"),
        ("--modes", "", "--modes names none"),
        ("--dataset", "", "give one --dataset"),
    ],
)
def test_options_that_say_nothing_sound_are_refused(command, folder, option, value, message):
    """Before anything is tried."""
    given = {"--dataset": folder, option: value}
    with pytest.raises(ConfigError, match=message):
        command(*(part for pair in given.items() for part in pair))


def test_a_folder_that_cannot_be_made_is_told_before_the_work(command, folder, monkeypatch):
    """Not when all is tried."""
    monkeypatch.setattr("m3connect.evaluation.sweep.sweep", lambda *_, **__: pytest.fail("tried"))
    with pytest.raises(FileExistsError):
        command("--dataset", folder, "--output", folder / "corpus.jsonl")
