"""Queries out of the documents themselves: taken out of what they must find, and of nothing else."""

import json

import pytest

from m3connect.errors import ConfigError, InputError
from m3connect.evaluation import known_items, run
from m3connect.ingestion.chunking import Chunker
from m3connect.testing.fakes import HashEncoder

ENCODER = HashEncoder()
MANUAL = """# Pump manual

## Bolt torque

Tighten the four bolts crosswise with a wrench until they hold fast. The cover sits flat on its seal all
around. Wait an hour and tighten them once more.

## Oil change intervals

Drain the old oil while the pump is still warm from its work. Fill in two litres of the new one. Both
plugs get new rings, which come with the filter set. Contact the service team in case of doubt please.
"""
OTHER = """# Valve manual

## Seat inspection

Look at the seat with a lamp and a mirror from below first. A worn seat shows a grey ring all the way
around. Contact the service team in case of doubt please.
"""


@pytest.fixture
def manuals(tmp_path):
    """Two manuals in Markdown, with one sentence in both."""
    folder = tmp_path / "manuals"
    folder.mkdir()
    (folder / "pump.md").write_text(MANUAL)
    (folder / "valve.md").write_text(OTHER)
    return folder


@pytest.fixture
def built(manuals, tmp_path):
    """The collections of each kind, every possible query drawn."""
    made = known_items.build(manuals, Chunker(ENCODER, tokens=48), tmp_path / "made", queries=100)
    return {dataset.name.removeprefix("manuals-"): dataset for dataset in made}


def texts(dataset):
    """The passages that are encoded, by id."""
    return {document.id: document.text for document in dataset.documents()}


def test_queries_are_titles_headings_and_sentences(built):
    """Each kind has its own; a sentence of both manuals is none, nor is a passage asked for twice."""
    asked = {kind: {query.text for query in dataset.queries} for kind, dataset in built.items()}
    assert asked["titles"] == {"Pump manual", "Valve manual"}
    assert asked["headings"] == {"Bolt torque", "Oil change intervals", "Seat inspection"}
    assert len(asked["sentences"]) == 3
    assert not any("service team" in text for text in asked["sentences"])


def test_what_became_a_query_is_gone_from_what_it_must_find(built):
    """From title, headings and text of each relevant passage, and from no other."""
    for kind, dataset in built.items():
        encoded = texts(dataset)
        for query in dataset.queries:
            relevant = dataset.qrels[query.id]
            assert relevant, kind
            for id_ in relevant:
                assert query.text not in encoded[id_]
    pump = built["titles"].qrels[next(q.id for q in built["titles"].queries if "Pump" in q.text)]
    assert {id_.partition("#")[0] for id_ in pump} == {"pump.md"}
    assert sum("service team" in text for text in texts(built["sentences"]).values()) == 2


SECTIONS = """# Fan manual

## Before you **start** the `fan`

The Fan manual is read before the fan is switched on in spring. Air flows once it turns, and the room
is fresh again after an hour. A window that is open helps when it is warm outside.

## Yearly care of seals

### Inside the [old](a.html) housing

Wipe the seal with a cloth and look for cracks with a lamp. Grease it with the paste from the drawer.

### Outside of it all

Look at the paint and the screws from all sides twice a year. Note what you find in the book there.
"""


def test_no_word_of_a_query_helps_to_find_it(tmp_path):
    """Whatever stands in it or around it: a title in a sentence, Markdown in a heading, subsections below."""
    folder = tmp_path / "fans"
    folder.mkdir()
    (folder / "fan.md").write_text(SECTIONS)
    asked = set()
    for seed in range(8):  # a passage gives one query of each kind
        for dataset in known_items.build(
            folder, Chunker(ENCODER, tokens=40), tmp_path / "made", seed=seed
        ):
            encoded = texts(dataset)
            for query in dataset.queries:
                asked.add(query.text)
                for id_, passage in encoded.items():
                    kept = known_items.without(passage, [query.text]) == passage
                    assert kept, f"{query.text!r} stands in {id_}: {passage!r}"
    assert {"Before you start the fan", "Yearly care of seals"} < asked
    assert any(text.startswith("The Fan manual is read") for text in asked)


def test_a_heading_over_subsections_of_two_documents_is_no_query(manuals, tmp_path):
    """It stands in the passages of both."""
    (manuals / "fan.md").write_text(SECTIONS.replace("Yearly care of seals", "Bolt torque"))
    made = known_items.build(manuals, Chunker(ENCODER, tokens=40), tmp_path / "made")
    assert all(query.text != "Bolt torque" for dataset in made for query in dataset.queries)


def test_languages_are_those_of_the_documents(tmp_path):
    """Else the given one: BM25 stems by it."""
    lines = [
        {
            "_id": "a",
            "title": "Der alte Garten",
            "text": "Bäume stehen darin seit Jahren.",
            "lang": "de",
        },
        {"_id": "b", "title": "The old garden", "text": "Trees have been in it for years."},
    ]
    source = tmp_path / "corpus.jsonl"
    source.write_text("\n".join(map(json.dumps, lines)))
    made = known_items.build(source, Chunker(ENCODER), tmp_path / "made", language="en")
    dataset = next(each for each in made if each.name.endswith("titles"))
    assert {query.text: query.language for query in dataset.queries} == {
        "Der alte Garten": "de",
        "The old garden": "en",
    }
    assert [document.metadata["lang"] for document in dataset.documents()] == ["de", "en"]


def test_what_could_not_be_read_is_told(manuals, tmp_path):
    """Beside what was made of the rest."""
    (manuals / "broken.jsonl").write_text('{"id": "x", "text": 5}\n')
    made = known_items.build(manuals, Chunker(ENCODER), tmp_path / "made")
    for dataset in made:
        assert dataset.warnings[-1].startswith("1 of 3 documents could not be read; the first: ")


def test_what_was_made_is_never_read(manuals):
    """A second run would measure the first one's files."""
    with pytest.raises(ConfigError, match=r"report/known-items lies in .*manuals, .* --output"):
        known_items.build(manuals, Chunker(ENCODER), manuals / "report" / "known-items")


def test_the_kinds_share_their_passages(built):
    """One corpus is encoded for all: its hash is the same."""
    assert len({dataset.content for dataset in built.values()}) == 1


def test_the_draw_is_seeded(manuals, tmp_path):
    """The same seed gives the same queries, at most as many as asked for."""
    cutter = Chunker(ENCODER, tokens=48)
    drawn = [
        [
            [query.text for query in dataset.queries]
            for dataset in known_items.build(
                manuals, cutter, tmp_path / str(n), queries=1, seed=seed
            )
        ]
        for n, seed in enumerate((3, 3, 4))
    ]
    assert drawn[0] == drawn[1]
    assert [len(each) for each in drawn[0]] == [1, 1, 1]


def test_overlapping_passages_all_hold_the_sentence(tmp_path):
    """What a passage repeats of the one before is relevant there, too, and gone from both."""
    words = [f"word{n}" for n in range(60)]
    text = " ".join(" ".join(words[n : n + 10]) + "." for n in range(0, 60, 10))
    (tmp_path / "one.jsonl").write_text(json.dumps({"id": "a", "text": text}))
    cutter = Chunker(ENCODER, tokens=33, overlap=11)
    shared = 0
    for seed in range(4):
        (dataset,) = known_items.build(tmp_path / "one.jsonl", cutter, tmp_path / "made", seed=seed)
        encoded = texts(dataset)
        for query in dataset.queries:
            assert not any(query.text in passage for passage in encoded.values())
            shared += len(dataset.qrels[query.id]) > 1
    assert shared


def test_documents_that_give_no_query_are_an_error(tmp_path):
    """It names the source."""
    (tmp_path / "short.jsonl").write_text('{"id": "a", "text": "too short"}')
    with pytest.raises(InputError, match=r"short.jsonl: no title, heading or sentence of 1 doc"):
        known_items.build(tmp_path / "short.jsonl", Chunker(ENCODER), tmp_path / "made")


def test_they_can_be_measured(built):
    """A sentence that was taken out is found by what else its document says, or not at all."""
    (row,) = run.evaluate(built["titles"], ENCODER, modes=("dense",)).rows
    assert row.figures["recall@100"].mean() == 1
