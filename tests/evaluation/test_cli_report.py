"""``m3connect report`` from the outside, on folders that ``eval --output`` wrote."""

import json
import shutil
from collections.abc import Sequence

import pytest
import typer
from typer.testing import CliRunner

from m3connect.cli.groups import expanded
from m3connect.cli.report import report as report_command
from m3connect.errors import ConfigError, InputError
from m3connect.evaluation import run
from m3connect.evaluation.baselines import Baseline
from m3connect.evaluation.reports import files
from m3connect.searching.names import ModeName
from m3connect.testing.fakes import HashEncoder

pytestmark = pytest.mark.usefixtures("empty_charts")


@pytest.fixture(scope="module")
def measured(dataset, tmp_path_factory):
    """Folders of a model, another model, and BM25."""
    folder = tmp_path_factory.mktemp("evaluations")
    runs: list[tuple[str, HashEncoder, Sequence[ModeName], Sequence[Baseline]]] = [
        ("base", HashEncoder(width=2), ("dense", "sparse"), ()),
        ("new", HashEncoder(width=16), ("dense", "sparse"), ()),
        ("bm25", HashEncoder(), (), ("bm25",)),
    ]
    for name, encoder, modes, beside in runs:
        result = run.evaluate(dataset, encoder, modes=modes, beside=beside)
        files.write([result], folder / name)
    return folder


@pytest.fixture
def evaluations(measured, tmp_path):
    """A copy of these folders."""
    return shutil.copytree(measured, tmp_path / "evaluations")


@pytest.fixture
def call(evaluations):
    """Run the command inside the evaluations' folder; errors of ours are raised."""
    app = typer.Typer()
    app.command()(expanded(report_command))

    def with_arguments(line):
        words = [
            str(evaluations / word) if word in {"base", "new", "bm25"} else word
            for word in line.split()
        ]
        return CliRunner().invoke(app, words, catch_exceptions=False)

    return with_arguments


def test_tables_are_printed_again(call, evaluations):
    """One folder gives the table it was written with; two stand side by side."""
    written = (evaluations / "new" / "results.md").read_text()
    assert call("new").stdout.strip() in written
    assert call("new bm25 --metrics mrr@10").stdout.startswith("| mrr@10 | dense | sparse | bm25 |")
    assert list(json.loads(call("new bm25 --json").stdout)["tiny"]) == ["dense", "sparse", "bm25"]


def test_the_older_name_of_a_mode_is_read(call, evaluations, caplog, tmp_path):
    """Rows called dense+sparse are hybrid, and that is said; both names choose them."""
    folder = shutil.copytree(evaluations / "new", tmp_path / "older")
    for path in (folder / "results.json", folder / "tiny.queries.jsonl"):
        path.write_text(path.read_text().replace('"dense": {', '"dense+sparse": {'))
    assert "| ndcg@10 | hybrid |" in call(f"{folder} --modes dense+sparse").stdout
    assert "dense+sparse is read as hybrid" in caplog.text


def test_two_models_are_compared(call):
    """The same lexical weights gain nothing, wider vectors do, BM25 stands beside them."""
    outcome = call("new bm25 --base base")
    head, _, line = outcome.stdout.splitlines()[:3]
    assert head == "| ndcg@10 | dense | sparse | bm25 |"
    assert "(+0.000 =)" in line
    assert "by language of the query" in outcome.stdout
    (found,) = json.loads(call("new --base base --json").stdout).values()
    dense = found["datasets"]["tiny"]["dense"]
    assert dense["gain"]["difference"]["mean"] == pytest.approx(dense["mean"] - dense["base"])
    assert dense["gain"]["p_value"] < 0.05
    assert set(found["languages"]["tiny"]) == {"de", "en"}
    assert "| tiny | dense | 12 | " in call("new --base base --modes dense --intervals").stdout


@pytest.mark.parametrize(
    ("line", "error", "message"),
    [
        ("new --intervals", ConfigError, "give the other evaluation with --base"),
        ("new --metrics ndcg@3", InputError, "was not measured"),
        ("new --modes bm25", InputError, "nothing was measured for"),
        ("new base", InputError, "two of the folders measured"),
        ("nowhere", InputError, "no results.json"),
    ],
)
def test_wrong_options_are_refused(call, line, error, message):
    """Each is an error that says what there is."""
    with pytest.raises(error, match=message):
        call(line)


@pytest.mark.parametrize("content", [b"{", b"[1]", b'[{"rows": {}}]', b"[" * 9_999, b"\xff", b"3"])
def test_what_is_no_evaluation_is_named(call, tmp_path, content):
    """Whatever the file holds, it is the user's."""
    (tmp_path / "results.json").write_bytes(content)
    with pytest.raises(InputError, match=r"results\.json is not what eval --output has written"):
        call(str(tmp_path))


def test_corpora_of_different_sizes_are_told(call, evaluations):
    """The same queries over fewer documents are easier: that is no gain of the model."""
    path = evaluations / "new" / "results.json"
    path.write_text(path.read_text().replace('"documents": 36', '"documents": 12'))
    assert "tiny: evaluations of 12 and 36 documents" in call("new --base base").stderr
    assert "tiny: evaluations of 12 and 36 documents" in call("new bm25").stderr
    assert "documents" not in call("base bm25").stderr
