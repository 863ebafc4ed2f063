"""The example application: its folder, questions, answers, judgements and figures."""

import ast
import asyncio
import json
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from examples.rag_app import answering, measuring
from examples.rag_app.conversation import by_rule
from examples.rag_app.library import Library
from m3connect import M3Encoder, connect, evaluate, evaluate_live, load_dataset
from m3connect.errors import InputError
from m3connect.evaluation.answers import contains
from m3connect.serving.service import Service
from m3connect.testing.fakes import HashEncoder
from m3connect.training import examples as training_examples

FOLDER = Path(answering.__file__).parent


def written(events):
    """The text of an answer with its citations in brackets."""
    parts = {"text": lambda e: e["text"], "citation": lambda e: f"[{e['number']}]"}
    return "".join(parts[e["type"]](e) for e in events if e["type"] in parts)


def of(events, kind):
    """The events of a kind."""
    return [event for event in events if event["type"] == kind]


class TestLibrary:
    """The folder and its collection."""

    def test_the_collection_follows_the_folder(self, app):
        """New, changed and vanished files; hidden ones and those that are no text stay out, and are said."""
        folder = app.library.folder
        (folder / "depot.txt").unlink()
        (folder / "battery.md").write_text("Charging takes five hours.", encoding="utf-8")
        (folder / "sub").mkdir()
        (folder / "sub" / "new.txt").write_text("A new text.", encoding="utf-8")
        (folder / ".git").mkdir()
        (folder / ".git" / "x.txt").write_text("hidden", encoding="utf-8")
        (folder / "photo.png").write_bytes(b"x")
        told = []
        app.library.sync(told.append)
        assert {added.file: bool(added.problems) for added in told} == {
            "battery.md": False,
            "photo.png": True,
            "sub/new.txt": False,
        }
        texts = {payload["file"]: payload["text"] for _, payload in app.library.passages()}
        assert texts == {"battery.md": "Charging takes five hours.", "sub/new.txt": "A new text."}
        told.clear()
        app.library.sync(told.append)
        assert [added.file for added in told] == ["photo.png"]

    def test_a_new_version_takes_the_place_of_the_old(self, app):
        """Records that a file no longer has are gone; each is a document, named after its file."""
        rows = [json.dumps({"id": name, "text": f"text {name}"}) for name in "abc"]
        assert app.library.add("r.jsonl", "\n".join(rows).encode()).documents == 3
        added = app.library.add("r.jsonl", "\n".join([*rows[1:], "{broken"]).encode())
        assert (added.documents, len(added.problems)) == (2, 1)
        ids = {payload["document_id"] for _, payload in app.library.passages()}
        assert ids == {"battery.md", "depot.txt", "r.jsonl/b", "r.jsonl/c"}
        assert app.library.summary()["files"] == {"battery.md": 1, "depot.txt": 1, "r.jsonl": 2}

    def test_losses_and_failures_are_told_in_words(self, app):
        """What is held in part or not at all; a file without anything to read is not kept."""
        text = f"Words ![x](data:image/png;base64,{'iVBORw0KGgo' * 9}) and more."
        assert app.library.add("i.md", text.encode()).problems == ["i.md: images (1)"]
        assert app.library.add("e.txt", b"").problems == ["e.txt: empty (1)"]
        assert app.library.add("e.txt", b"").documents == 0
        (failure,) = app.library.add("photo.png", b"x").problems
        assert failure.startswith("photo.png: unknown format")
        names = {path.name for path in app.library.folder.iterdir()}
        assert names == {"battery.md", "depot.txt", "i.md"}

    @pytest.mark.parametrize("name", ["../x.md", "/x.md", "a/b.md", "a\\b.md", ".x.md", "..", ""])
    def test_nothing_is_written_elsewhere(self, app, name):
        """A name that is no plain file name is refused, to add and to delete."""
        with pytest.raises(InputError):
            app.library.add(name, b"x")
        with pytest.raises(InputError):
            app.library.remove(name)

    def test_what_is_deleted_is_gone(self, app):
        """The file and its passages; the last one, too."""
        for name in ("battery.md", "depot.txt"):
            app.library.remove(name)
        assert app.library.summary() == {"files": {}, "fields": {}}
        assert list(app.library.folder.iterdir()) == []
        assert not app.ask("hill depot")[-1]["answered"]


class TestAnswers:
    """Questions to events."""

    def test_without_a_model_the_best_sentence_answers(self, app):
        """Word for word, with the passage that it stands in."""
        events = app.ask("how long does charging the battery takes")
        assert [event["type"] for event in events][:2] == ["question", "passages"]
        assert written(events) == "Charging the battery takes four hours. [1]\n"
        assert of(events, "passages")[0]["passages"][0]["file"] == "battery.md"
        assert events[-1]["answered"]
        assert events[-1]["cited"] == [1]

    def test_below_the_threshold_nothing_is_said(self, chatting, model):
        """No model is asked; the nearest passages are told."""
        events = chatting.ask("capital of mongolia")
        assert written(events) == ""
        assert (events[-1]["answered"], events[-1]["cited"]) == (False, [])
        assert of(events, "passages")[0]["passages"]
        assert model.asked == []

    def test_a_filter_holds(self, app):
        """Passages that it leaves out are not found; a bad one is an error."""
        condition = 'file == "depot.txt"'
        events = app.ask("charging the battery takes four hours", condition=condition)
        assert {p["file"] for p in of(events, "passages")[0]["passages"]} == {"depot.txt"}
        with pytest.raises(InputError, match="expected a value"):
            app.ask("charging", condition="file ==")

    def test_a_model_answers_in_pieces_and_is_offered_no_tools(self, chatting, model):
        """Its text and citations come as it writes them; what else it sends is not read."""
        tool = {"tool_calls": [{"index": 0, "function": {"name": "rm", "arguments": "{}"}}]}
        model.script = [["Four ", "hours [", "1", "]", tool, ", as [9] says."]]
        events = chatting.ask("charging the battery takes")
        assert written(events) == "Four hours [1], as [9] says."
        assert events[-1]["cited"] == [1]
        ((path, body),) = model.asked
        assert path == "/v1/chat/completions"
        assert body["stream"]
        assert set(body) == {"model", "messages", "stream", "temperature", "max_tokens"}

    def test_a_model_may_say_that_the_passages_hold_nothing(self, chatting, model):
        """The words that it was told to use are a refusal."""
        model.script = [["NOT IN ", "THE DOCUMENTS."]]
        assert not chatting.ask("charging the battery takes")[-1]["answered"]

    def test_a_model_that_fails_is_told_and_replaced(self, chatting, model):
        """Refused: the best sentences answer. Broken off: what came stands, with a notice."""
        model.script = [401]
        events = chatting.ask("charging the battery takes")
        assert "tiny at http" in of(events, "notice")[0]["text"]
        assert "secret" not in json.dumps(events)
        assert written(events) == "Charging the battery takes four hours. [1]\n"
        model.script = [["Four hours [1]", None]]
        events = chatting.ask("charging the battery takes")
        assert written(events) == "Four hours [1]"
        assert of(events, "notice")

    def test_a_question_is_made_self_standing(self, chatting, model):
        """By the model where there is one; by the rule without, and where it fails."""
        model.script = [["How long does charging\n the battery takes?"], ["Four [1]"]]
        events = chatting.ask("And how long?", "How is the battery charged?")
        assert events[0]["text"] == "How long does charging the battery takes?"
        assert "How is the battery charged?" in model.asked[0][1]["messages"][1]["content"]
        model.script = [400, ["Four [1]"]]
        events = chatting.ask("And how long?", "How is the battery charged?")
        assert [event["type"] for event in events][:2] == ["notice", "question"]
        assert events[1]["text"] == "How is the battery charged? And how long?"

    def test_a_follow_up_is_answered_by_its_own_sentence(self, app):
        """Not by the one that answered the question before."""
        app.assistant.threshold = 0.3
        before = "How long does charging the battery take?"
        events = app.ask("And how to store it at percent?", before)
        assert events[0]["text"] == f"{before} And how to store it at percent?"
        assert written(events).startswith("Store it at 60 percent.")


@pytest.mark.parametrize(
    ("question", "before", "alone"),
    [
        ("Where is the depot?", ["How is it?"], "Where is the depot?"),
        ("And on Sundays?", [], "And on Sundays?"),
        ("And on Sundays?", ["Where is A?", "Is it far?"], "Where is A? And on Sundays?"),
        ("Wann öffnet es?", ["Wo ist A?"], "Wo ist A? Wann öffnet es?"),
        ("Quand ouvre-t-il ?", ["Où est A ?"], "Où est A ? Quand ouvre-t-il ?"),
        ("Is it far?", ["Is it open?", "Was it?"], "Is it open? Is it far?"),
        ("Items of the itinerary?", ["Where is A?"], "Items of the itinerary?"),
    ],
)
def test_the_rule_for_questions_that_lean(question, before, alone):
    """A word that points back, or a first "and", brings the last question that stands alone."""
    assert by_rule(question, before) == alone


def judge(client, question, passage, *, relevant):
    """Say whether a passage answers a question."""
    given = {"question": question, "passage": passage, "relevant": relevant}
    return client.put("/judgements", json=given)


def test_judgements_are_what_eval_and_train_read(app):
    """A click is a judgement of a passage; the last one on it counts, and what is gone stays judged."""
    with TestClient(app.web, base_url="http://localhost") as client:
        judge(client, "how long?", "depot.txt#0", relevant=True)
        judge(client, "how long?", "depot.txt#0", relevant=False)
        judge(client, "how long?", "battery.md#0", relevant=True)
        judge(client, "where?", "depot.txt#0", relevant=True)
        app.library.remove("depot.txt")
        judge(client, "where?", "battery.md#0", relevant=False)
        refused = judge(client, "where?", "nothing#0", relevant=True)
    assert refused.status_code == 400
    assert "no document 'nothing#0'" in refused.json()["error"]["message"]
    dataset = load_dataset(app.home / "judgements")
    relevant = {query.text: dict(dataset.qrels[query.id]) for query in dataset.queries}
    assert relevant == {
        "how long?": {"depot.txt#0": 0, "battery.md#0": 1},
        "where?": {"depot.txt#0": 1, "battery.md#0": 0},
    }
    assert set(dataset.ids) == {"battery.md#0", "depot.txt#0"}
    result = evaluate(dataset, HashEncoder(width=256), modes=["dense"], names=["recall@10"])
    assert result.rows[0].figures["recall@10"].mean() == 1.0
    source = training_examples.open_source(app.home / "judgements")
    pairs = {example.query: example.positives for example in (source[0], source[1])}
    assert pairs["where?"] == ("The hill depot opens at ten.",)


def asked(folder, *queries):
    """Queries with the documents that answer them, as a test collection without a corpus."""
    rows = [{"_id": f"q{n}", "text": q, "answers": a} for n, (q, a, _) in enumerate(queries)]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    judged = [f"q{n}\t{id_}\t{grade}" for n, (*_, (id_, grade)) in enumerate(queries)]
    (folder / "qrels.tsv").write_text("\n".join(judged), "utf-8")
    return load_dataset(folder, bare=True)


def test_the_table_counts_what_is_right(app, tmp_path):
    """By kind of question: answered, cited rightly, with an answer in the text."""
    questions = asked(
        tmp_path,
        ("charging the battery takes", ["FOUR  hours"], ("battery.md", 1)),
        ("hill depot opens", ["eleven"], ("depot.txt", 1)),
        ("capital of mongolia", [], ("depot.txt", 0)),
        ("how is the battery charged\nand how long does charging the battery takes", ["four"], ("battery.md", 1)),
    )  # fmt: skip
    table = asyncio.run(measuring.measure(app.assistant, questions))
    assert table.splitlines()[2:] == [
        "| answerable | 2 | 1.00 | 1.00 | 1.00 | 0.50 |",
        "| no answer | 1 | 0.00 |  |  |  |",
        "| follow-up | 1 | 1.00 | 1.00 | 1.00 | 1.00 |",
    ]


def test_a_chat_models_answers_are_measured(chatting, model, tmp_path):
    """It rewrites a question that has one before it, and no other; where it fails, that is told."""
    question = ("charging the battery takes", ["four"], ("battery.md", 1))
    after = ("How is the battery?\ncharging the battery takes", ["four"], ("battery.md", 1))
    model.script = [["Four hours [1]."], ["charging the battery takes"], ["Hours [1, 2]."]]
    questions = asked(tmp_path, question, after)
    table = asyncio.run(measuring.measure(chatting.assistant, questions))
    assert table.splitlines()[2:] == [
        "| answerable | 1 | 1.00 | 1.00 | 1.00 | 1.00 |",
        "| follow-up | 1 | 1.00 | 1.00 | 0.50 | 0.00 |",
    ]
    assert len(model.asked) == 3
    model.script = [400]
    table = asyncio.run(measuring.measure(chatting.assistant, asked(tmp_path, question)))
    assert table.splitlines()[-2] == "The chat model failed:"
    assert table.splitlines()[-1].startswith("charging the battery takes: tiny at http")


@pytest.fixture(scope="module")
def sample():
    """The sample in memory, by the bundled model."""
    pytest.importorskip("m3connect_m3_mini")
    service = Service(M3Encoder.load("m3-mini"), {"s": lambda: connect("memory", collection="s")})
    library = Library(FOLDER / "sample", service)
    library.sync(lambda added: None)
    yield library
    service.close()


@pytest.mark.slow
@pytest.mark.parametrize("half", ["calibrate", "report"])
def test_the_questions_fit_the_sample(sample, half):
    """Every judged document is there, and holds an answer where it is relevant."""
    texts = {}
    for _, payload in sample.passages():
        texts[payload["document_id"]] = texts.get(payload["document_id"], "") + payload["text"]
    dataset = load_dataset(FOLDER / "questions", qrels=half, bare=True)
    assert len(dataset.queries) == 39
    for query in dataset.queries:
        for id_, grade in dataset.qrels[query.id].items():
            assert contains(texts[id_], query.answers) == bool(grade), query


def test_the_threshold_is_what_eval_finds(sample):
    """The stored one is of the bundled model, and measured again it is the same."""
    stored = json.loads((FOLDER / "calibrated.json").read_text("utf-8"))[0]
    encoder = sample.service.encoder
    assert stored["settings"]["model"]["weights"] == encoder.info.fingerprint.weights
    dataset = load_dataset(FOLDER / "questions", qrels="calibrate", bare=True)
    with sample.service.collection(None) as collection:
        found = evaluate_live(dataset, encoder, collection, modes=["all"], reference=False)
    assert found.rows[0].threshold.score == pytest.approx(
        stored["rows"]["all"]["threshold"]["score"],
        abs=0.03,  # other precisions of other CPUs
    )


def test_it_stays_small_and_public():
    """Under 600 lines, and no private name of the package."""
    lines = 0
    for path in FOLDER.glob("*.py"):
        text = path.read_text("utf-8")
        lines += len(text.splitlines())
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("m3connect"):
                assert not any(alias.name.startswith("_") for alias in node.names), path
                assert "._" not in node.module, path
    assert lines < 600
