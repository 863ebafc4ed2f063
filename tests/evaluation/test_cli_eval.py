"""``m3connect eval`` from the outside, with a fake model."""

import json
import shutil

import pytest
import typer
from typer.testing import CliRunner

from m3connect.cli.eval import evaluate as eval_command
from m3connect.cli.groups import expanded
from m3connect.cli.running import Services
from m3connect.contract import CollectionSchema
from m3connect.datasets import beir
from m3connect.errors import ConfigError, FingerprintMismatch, InputError
from m3connect.stores.memory import MemoryConnector
from m3connect.testing.fakes import HashEncoder
from m3connect.types import RecordBatch

pytestmark = pytest.mark.usefixtures("empty_charts")


@pytest.fixture
def run(tmp_path):
    """Call the command with arguments; errors of ours are raised."""
    app = typer.Typer()
    app.command()(expanded(eval_command))

    def load(_, *, max_length, **__):
        return HashEncoder(max_length=max_length or 512)

    def call(*arguments, connector=None):
        return CliRunner().invoke(
            app,
            [*map(str, arguments), "--cache", str(tmp_path / "cache")],
            catch_exceptions=False,
            obj=Services(lambda *_, **__: connector, load),
        )

    return call


def test_json_is_dataset_mode_metric(run, folder):
    """``--json`` prints one object of means and nothing else."""
    outcome = run("--dataset", folder, "--baseline", "bm25", "--json")
    assert outcome.exit_code == 0
    found = json.loads(outcome.stdout)
    assert list(found) == ["tiny"]
    assert list(found["tiny"]) == ["dense", "sparse", "multivector", "hybrid", "all", "bm25"]
    assert set(found["tiny"]["all"]) == {"ndcg@10", "mrr@10", "recall@10", "recall@100"}
    assert 0.5 < found["tiny"]["sparse"]["ndcg@10"] <= 1


def test_tables_and_files(run, folder, tmp_path):
    """Without ``--json`` there is a table a metric; ``--output`` keeps everything."""
    out = tmp_path / "out"
    outcome = run(
        "--dataset", folder, "--modes", "sparse,all", "--metrics", "ndcg@10,mrr@10",
        "--fusion", "rrf", "--limit-queries", "5", "--output", out,
    )  # fmt: skip
    assert outcome.exit_code == 0
    assert "| ndcg@10 | sparse | all |" in outcome.stdout
    assert "| mrr@10 | sparse | all |" in outcome.stdout
    assert "5 of 12 queries, drawn with seed 0" in outcome.stderr
    stored = json.loads((out / "results.json").read_text())[0]
    assert stored["queries"] == 5
    assert stored["settings"]["preset"]["all"]["fusion"]["k"] == 60
    assert (out / "runs" / "tiny.all.trec").exists()


def test_a_threshold_is_printed_where_it_is_asked_for(run, folder, tmp_path):
    """A line a mode, with what it tells apart; as JSON beside the means; every output keeps it."""
    out = tmp_path / "out"
    arguments = ("--dataset", folder, "--modes", "dense,all", "--threshold")
    printed = run(*arguments, "--output", out).stdout
    assert "| dataset | row | threshold | answered | refused |" in printed
    stored = json.loads((out / "results.json").read_text())[0]["rows"]["all"]["threshold"]
    assert f"| tiny | all | {stored['score']:.3f} | {stored['answered']:.3f} |" in printed
    assert stored["answered"] + stored["refused"] > 1.5
    found = json.loads(run(*arguments, "--json").stdout)
    assert found["tiny"]["all"]["threshold"] == stored["score"]
    (folder / "qrels.tsv").write_text("q00\td00\t0\n")
    outcome = run(*arguments)
    assert "threshold" not in outcome.stdout
    assert "tiny: no score tells queries with an answer from others" in outcome.stderr


def test_nothing_odd_is_silent(run, folder):
    """With ``--json``, too, what was left out is counted on stderr."""
    with (folder / "queries.jsonl").open("a") as queries:
        queries.write('\n{"_id": "x", "text": "never judged"}\n')
    outcome = run("--dataset", folder, "--modes", "dense", "--json")
    assert list(json.loads(outcome.stdout)) == ["tiny"]
    assert "tiny: 1 queries without judgements left out" in outcome.stderr


def test_datasets_of_one_name_are_refused(run, folder, tmp_path):
    """Results go by the datasets' names, so that none replaces another; a space becomes a dash."""
    for names in ((folder.name, f"more/{folder.name}"), ("a b", "a-b")):
        one, two = (shutil.copytree(folder, tmp_path / "twins" / name) for name in names)
        with pytest.raises(ConfigError, match=rf"{one.name}'.*{two.name}'.* share theirs"):
            run("--dataset", one, "--dataset", two)


def test_a_folder_that_is_not_there_is_named(run, tmp_path):
    """Neither a folder nor a published set."""
    with pytest.raises(InputError, match="nowhere: no such folder, and no published set's name"):
        run("--dataset", tmp_path / "nowhere")


def test_texts_can_be_cut(run, folder):
    """``--max-length`` is the encoder's, and what it cut is reported."""
    outcome = run("--dataset", folder, "--modes", "dense", "--max-length", 6)
    assert "36 of 36 documents are longer than the model reads and were cut" in outcome.stderr


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            ["--modes", "colbert"],
            InputError,
            "mode is one of dense, sparse, multivector, hybrid, all",
        ),
        (["--baseline", "splade"], ConfigError, "--baseline takes"),
        (["--metrics", "bleu@4"], ConfigError, "no metric"),
        (["--metrics", ","], ConfigError, "--metrics names none"),
        (["--modes", ""], ConfigError, "--modes names none"),
        (["--modes", "none"], ConfigError, "nothing to measure"),
        (["--depth", "50"], ConfigError, "give --live"),
        (["--preset", "beir"], ConfigError, "no preset"),
        (["--weights", "1,2"], ConfigError, "--weights takes 3 numbers"),
        (["--weights", "0,0,0"], ConfigError, "0 alone ranks nothing"),
        (["--weights=-1,1,1"], InputError, "weights must be finite and not negative"),
        (["--fusion", "rrf", "--rrf-k", "-1"], InputError, "k of rank fusion must be at least 1"),
        (["--rrf-k", "10"], ConfigError, "--rrf-k is of reciprocal rank fusion: add --fusion rrf"),
        (["--qrels", "dev"], InputError, "no judgements named 'dev'"),
    ],
)
def test_wrong_options_are_refused(run, folder, arguments, error, message):
    """Each wrong option is an error that names it."""
    with pytest.raises(error, match=message):
        run("--dataset", folder, *arguments)


def test_a_collection_can_be_measured(run, folder):
    """``--live`` measures what a database answers, with latency, beside the baselines."""
    dataset = beir.load(folder)
    with MemoryConnector(collection="tiny") as connector:
        connector.ensure(CollectionSchema(16, True, 16))
        documents = list(dataset.documents())
        ids = [document.id for document in documents]
        vectors = HashEncoder().encode([document.text for document in documents])
        connector.upsert(RecordBatch(ids, [{} for _ in ids], vectors))
        arguments = ("--dataset", folder, "--modes", "dense,all", "--baseline", "bm25")
        outcome = run(*arguments, "--live", connector=connector)
        assert outcome.exit_code == 0
        assert "| ndcg@10 | dense | all | bm25 |" in outcome.stdout
        assert "| dataset | mode | p50 ms | p95 ms | p99 ms | overlap@10 |" in outcome.stdout
        assert "| tiny | dense |" in outcome.stdout
        assert "| tiny | bm25 |" not in outcome.stdout
        with pytest.raises(ConfigError, match="one collection holds one corpus"):
            run(*arguments, "--dataset", "another", "--live")


def test_what_is_measured_beside_a_collection_warns_too(run, folder):
    """The corpus that a storage is tried on is encoded here, and may be cut."""
    encoder = HashEncoder(max_length=6)
    with MemoryConnector(collection="tiny") as connector:
        connector.ensure(CollectionSchema(16, True, 16))
        connector.upsert(RecordBatch(["d00"], [{}], encoder.encode(["alpha"])))
        arguments = (
            "--dataset",
            folder,
            "--modes",
            "dense",
            "--storage",
            "int8",
            "--max-length",
            6,
        )
        told = run(*arguments, "--live", connector=connector).stderr
    assert "36 of 36 documents are longer than the model reads" in told
    assert told.count("35 documents of the dataset are not in the collection") == 1


def test_passages_are_cut_as_asked(run, folder, tmp_path):
    """``--passages`` says in the settings how and into how many; options of cutting need it."""
    out = tmp_path / "out"
    arguments = ("--dataset", folder, "--modes", "sparse", "--chunk-tokens", 5)
    with pytest.raises(ConfigError, match="--chunk-tokens is about passages: give --passages"):
        run(*arguments)
    run(*arguments, "--passages", "--chunk-overlap", 1, "--context", "none", "--output", out)
    (stored,) = json.loads((out / "results.json").read_text())
    cut_as = "semantic 2, 5 tokens, overlap 1, context none"
    assert stored["settings"]["passages"] == {"cut_as": cut_as, "count": 72}
    with pytest.raises(ConfigError, match="--context takes title, headings"):
        run("--dataset", folder, "--passages", "--context", "summary")


def test_a_collection_that_was_not_cut_so_is_refused(run, folder):
    """``--live --passages`` measures that cut or nothing."""
    with MemoryConnector(collection="tiny") as connector:
        connector.ensure(CollectionSchema(16, True, 16))
        with pytest.raises(FingerprintMismatch, match=r"came ready-made.*say 'semantic 2, 256"):
            run("--dataset", folder, "--passages", "--live", connector=connector)


def test_queries_are_made_where_there_are_none(run, folder, tmp_path):
    """``--no-qrels`` takes any documents, measures each kind of query, and says what that cannot show."""
    for name in ("queries.jsonl", "qrels.tsv"):
        (folder / name).unlink()
    with (folder / "corpus.jsonl").open("w") as corpus:
        for n in range(4):
            text = f"Number {n} has a long sentence of more than eight words. " * 2
            text += f"It is followed by word{n} and yet another sentence of its own with words."
            corpus.write(json.dumps({"_id": n, "text": text, "title": f"The title {n}"}) + "\n")
    arguments = ("--dataset", folder, "--no-qrels", "--modes", "sparse", "--baseline", "bm25")
    outcome = run(*arguments, "--metrics", "mrr@10", "--output", tmp_path / "out")
    assert "| tiny-titles |" in outcome.stdout
    assert "| tiny-sentences |" in outcome.stdout
    assert "They do not show how people's questions fare" in outcome.stderr
    assert (tmp_path / "out" / "known-items" / "tiny-titles" / "queries.jsonl").exists()
    for clash in ("--live", "--passages"):
        with pytest.raises(ConfigError, match=f"leave {clash} out"):
            run(*arguments, clash)
    with pytest.raises(ConfigError, match="--dataset names none"):
        run("--dataset", "", "--no-qrels")
    twin = shutil.copytree(folder, tmp_path / "elsewhere" / folder.name)
    with pytest.raises(ConfigError, match=rf"would share a name: {folder}, {twin}"):
        run(*arguments, "--dataset", twin)
