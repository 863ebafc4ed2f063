"""The example application: its folder, questions, answers, judgements and figures."""

import ast
import asyncio
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.rag_app import answering, measuring
from examples.rag_app.conversation import by_rule
from examples.rag_app.judgements import Judgements
from m3connect import evaluate, load_dataset
from m3connect.errors import InputError
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
        assert {added.file: bool(added.failures) for added in told} == {
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
        assert (added.documents, len(added.failures)) == (2, 1)
        ids = {payload["document_id"] for _, payload in app.library.passages()}
        assert ids == {"battery.md", "depot.txt", "r.jsonl/b", "r.jsonl/c"}
        assert app.library.summary()["files"] == {"battery.md": 1, "depot.txt": 1, "r.jsonl": 2}

    def test_losses_and_failures_are_told_in_words(self, app):
        """What is held in part or not at all; a file without anything to read is not kept."""
        text = f"Words ![x](data:image/png;base64,{'iVBORw0KGgo' * 9}) and more."
        assert app.library.add("i.md", text.encode()).losses == ["i.md: images (1)"]
        assert app.library.add("e.txt", b"").losses == ["e.txt: empty (1)"]
        assert app.library.add("e.txt", b"").documents == 0
        (failure,) = app.library.add("photo.png", b"x").failures
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
        ("Is it far?", ["Is it?"], "Is it far?"),
        ("Items of the itinerary?", ["Where is A?"], "Items of the itinerary?"),
    ],
)
def test_the_rule_for_questions_that_lean(question, before, alone):
    """A word that points back, or a first "and", brings the last question that stands alone."""
    assert by_rule(question, before) == alone


@given(
    st.lists(st.sampled_from(["[1]", "[2, 1]", "[7]", "[", "]", "[x]", "1", ",", " ", "a"])),
    st.data(),
)
def test_citations_do_not_depend_on_how_the_stream_is_cut(parts, data):
    """However a text comes in, the same events come out, and nothing of it is lost."""
    text = "".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]

    def joined(pieces):
        async def stream():
            for piece in pieces:
                yield piece

        async def events():
            return [event async for event in answering.with_citations(stream(), 2)]

        return written(asyncio.run(events()))

    def apart(match):
        return "".join(f"[{int(number)}]" for number in match[1].split(","))

    assert joined(pieces) == joined([text]) == re.sub(r"\[(\d+(?:\s*,\s*\d+)*)\]", apart, text)


@given(st.lists(st.text(), max_size=4), st.text(st.characters(exclude_characters="\n")))
def test_no_passage_ends_early(texts, question):
    """Whatever a document holds, its passage stays one JSON string on one line."""
    lines = answering.prompt(question, texts).split("\n")
    assert lines[0] == "Passages:"
    assert [json.loads(line)["text"] for line in lines[1 : 1 + len(texts)]] == texts
    assert lines[-1] == f"Question: {question}"


def test_judgements_are_what_eval_and_train_read(app):
    """A click is a judgement of a passage; the last one on it counts, and what is gone stays judged."""
    judgements = Judgements(app.home, app.library)
    judgements.add("how long?", "depot.txt#0", relevant=True)
    judgements.add("how long?", "depot.txt#0", relevant=False)
    judgements.add("how long?", "battery.md#0", relevant=True)
    judgements.add("where?", "depot.txt#0", relevant=True)
    app.library.remove("depot.txt")
    judgements.add("where?", "battery.md#0", relevant=False)
    with pytest.raises(InputError, match="no passage"):
        judgements.add("where?", "nothing#0", relevant=True)
    dataset = load_dataset(judgements.folder)
    relevant = {query.text: dict(dataset.qrels[query.id]) for query in dataset.queries}
    assert relevant == {
        "how long?": {"depot.txt#0": 0, "battery.md#0": 1},
        "where?": {"depot.txt#0": 1, "battery.md#0": 0},
    }
    assert set(dataset.ids) == {"battery.md#0", "depot.txt#0"}
    result = evaluate(dataset, app.service.encoder, modes=["dense"], names=["recall@10"])
    assert result.rows[0].figures["recall@10"].mean() == 1.0
    source = training_examples.open_source(judgements.folder)
    pairs = {example.query: example.positives for example in (source[0], source[1])}
    assert pairs["where?"] == ("The hill depot opens at ten.",)


def test_the_threshold_and_the_table(app):
    """The threshold parts questions with an answer from others; the table counts what is right."""
    questions = [
        {
            "question": "charging the battery takes",
            "files": ["battery.md"],
            "answers": ["FOUR  hours"],
        },
        {"question": "hill depot opens", "files": ["depot.txt"], "answers": ["ten"]},
        {"question": "capital of mongolia", "files": [], "answers": []},
    ]
    chosen = measuring.calibrate(app.assistant, questions)
    assert (chosen["answered"], chosen["refused"]) == (1.0, 1.0)
    app.assistant.threshold = chosen["threshold"]
    table = asyncio.run(measuring.measure(app.assistant, questions))
    assert table.splitlines()[2:] == [
        "| answerable | 2 | 1.00 | 1.00 | 1.00 | 1.00 |",
        "| no answer | 1 | 0.00 |  |  |  |",
    ]


def test_a_chat_models_answers_are_measured(chatting, model):
    """It rewrites a question that has one before it, and no other; where it fails, that is told."""
    asked = {"question": "charging the battery takes", "files": ["battery.md"], "answers": ["four"]}
    after = {**asked, "after": "How is the battery?"}
    model.script = [["Four hours [1]."], ["charging the battery takes"], ["Hours [1, 2]."]]
    table = asyncio.run(measuring.measure(chatting.assistant, [asked, after]))
    assert table.splitlines()[2:] == [
        "| answerable | 1 | 1.00 | 1.00 | 1.00 | 1.00 |",
        "| follow-up | 1 | 1.00 | 1.00 | 0.50 | 0.00 |",
    ]
    assert len(model.asked) == 3
    model.script = [400]
    table = asyncio.run(measuring.measure(chatting.assistant, [asked]))
    assert table.splitlines()[-2] == "The chat model failed:"
    assert table.splitlines()[-1].startswith("charging the battery takes: tiny at http")


def test_the_questions_fit_the_sample():
    """Each names files that are there and hold its answer, in both splits."""
    questions = [
        json.loads(line) for line in (FOLDER / "questions.jsonl").read_text("utf-8").splitlines()
    ]
    assert {question["split"] for question in questions} == {"calibrate", "report"}
    for question in questions:
        for file in question["files"]:
            text = " ".join((FOLDER / "sample" / file).read_text("utf-8").split())
            assert any(" ".join(answer.split()) in text for answer in question["answers"]), question
    assert set(json.loads((FOLDER / "threshold.json").read_text("utf-8"))) >= {"model", "threshold"}


def test_it_stays_small_and_public():
    """Under 600 lines of code (blank ones and docstrings aside), and no private name of the package."""
    code = 0
    for path in FOLDER.glob("*.py"):
        text = path.read_text("utf-8")
        tree = ast.parse(text)
        code += sum(bool(line.strip()) for line in text.splitlines())
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
                value = body[0].value
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    lines = text.splitlines()[value.lineno - 1 : value.end_lineno]
                    code -= sum(bool(line.strip()) for line in lines)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("m3connect"):
                assert not any(alias.name.startswith("_") for alias in node.names), path
                assert "._" not in node.module, path
    assert code < 600
