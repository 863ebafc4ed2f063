"""Teacher scores: in place, in order, streamed, and the formula's."""

import json
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from m3connect.cli.groups import expanded
from m3connect.cli.running import Services
from m3connect.cli.score import score as score_command
from m3connect.connecting.registry import connect
from m3connect.errors import InputError
from m3connect.inference import reranking
from m3connect.searching import scoring
from m3connect.testing.fakes import HashEncoder
from m3connect.training_data import teacher

EXAMPLES = [
    {
        "query": "blue sky",
        "pos": ["the sky is blue"],
        "neg": ["green grass", "a blue car"],
        "type": "x",
    },
    {"query": "red", "pos": ["a red rose", "red"], "neg": []},
]


def write(path, examples=EXAMPLES):
    path.write_text("\n".join(json.dumps(example) for example in examples) + "\n")
    return path


@pytest.mark.parametrize("batch", [1, 32])
def test_scores_stand_beside_their_texts(monkeypatch, batch):
    """Each text gets its own pair's score, whatever the batches; other keys stay."""
    monkeypatch.setattr(teacher, "BATCH", batch)
    scored = list(
        teacher.add_scores(EXAMPLES, lambda pairs: [len(q) * 1000 + len(p) for q, p in pairs])
    )
    assert [(each["pos_scores"], each["neg_scores"]) for each in scored] == [
        ([8015.0], [8011.0, 8010.0]),
        ([3010.0, 3003.0], []),
    ]
    assert scored[0]["type"] == "x"


@pytest.mark.parametrize("weights", [(1.0, 0.3, 1.0), (0.0, 1.0, 0.0)])
def test_the_models_own_score_is_the_weighted_sum(weights):
    """w1 dense + w2 sparse + w3 MaxSim, and a leg that weighs nothing is not needed."""
    encoder = HashEncoder()
    pairs = [("blue sky", "the sky is blue"), ("red", "red"), ("blue sky", "red")]
    found = teacher.own_score(encoder, weights)(pairs)
    for (query, passage), score in zip(pairs, found, strict=True):
        one, other = encoder.encode([query]), encoder.encode([passage])
        parts = (
            scoring.dense_scores(one.dense[0], other.dense)[0],
            scoring.sparse_scores(one.sparse[0], other.sparse)[0],
            scoring.maxsim(one.multivector[0], other.multivector[0]),
        )
        assert score == pytest.approx(
            sum(w * s for w, s in zip(weights, parts, strict=True)), abs=1e-6
        )


def test_the_command_scores_a_file(tmp_path, monkeypatch):
    """The output has the input's lines with scores; a cross-encoder's logits can be the teacher's."""
    sevens = SimpleNamespace(logits=lambda pairs: [7.0] * len(pairs))
    monkeypatch.setattr(reranking, "CrossEncoder", lambda *_, **__: sevens)
    app = typer.Typer()
    app.command()(expanded(score_command))
    services = Services(connect, lambda *_, **__: HashEncoder())
    source, out = write(tmp_path / "in.jsonl"), tmp_path / "out.jsonl"
    for more, positive in (([], None), (["--cross-encoder", "any"], 7.0)):
        arguments = [str(source), "--output", str(out), *more]
        assert (
            CliRunner().invoke(app, arguments, catch_exceptions=False, obj=services).exit_code == 0
        )
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        assert [line["query"] for line in lines] == ["blue sky", "red"]
        assert len(lines[0]["neg_scores"]) == 2
        assert positive in {None, lines[0]["pos_scores"][0]}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{oops", r"in\.jsonl:2: not JSON"),
        ('{"pos": []}', r"in\.jsonl:2: expected an object"),
        ('{"query": "x", "pos": ["a"]}', "'neg' must hold a list of strings"),
        ('{"query": "x", "pos": "a", "neg": []}', "'pos' must hold a list of strings"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, message):
    """What is no training example is an error with file and line."""
    path = tmp_path / "in.jsonl"
    path.write_text('{"query": "x", "pos": [], "neg": []}\n' + line + "\n")
    with pytest.raises(InputError, match=message):
        list(teacher.read(path))
