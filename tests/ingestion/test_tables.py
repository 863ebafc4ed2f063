"""ingest() takes what people have: tables of every kind, dicts, and values as Python has them."""

import enum
from datetime import UTC, date, datetime, time
from decimal import Decimal
from types import MappingProxyType
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest

from m3connect import Document, F, search
from m3connect.errors import ConfigError, InputError
from m3connect.ingestion import DocumentSource, Options, ingest, open_source
from m3connect.stores.memory import MemoryConnector

ROWS: list[dict[str, Any]] = [
    {"key": at, "body": f"text number {at}", "lang": "en" if at % 2 else "de", "year": 2000 + at}
    for at in range(6)
]
FORMS = [
    "table", "batch", "batches", "reader", "pandas", "polars", "duckdb", "dicts", "generator",
]  # fmt: skip


def in_form(form):
    """The rows above, as one of the things people have."""
    table = pa.Table.from_pylist(ROWS)
    match form:
        case "table":
            return table
        case "batch":
            return table.to_batches()[0]
        case "batches":
            return iter(table.to_batches(max_chunksize=2))
        case "reader":
            return table.to_reader(max_chunksize=2)
        case "pandas":
            return pytest.importorskip("pandas").DataFrame(ROWS)
        case "polars":
            return pytest.importorskip("polars").DataFrame(ROWS)
        case "duckdb":
            return pytest.importorskip("duckdb").from_arrow(table)
        case "dicts":
            return ROWS
        case _:
            return (MappingProxyType(row) for row in ROWS)


def records(connector):
    ids = sorted(id_ for batch in connector.scan() for id_ in batch.ids)
    return list(connector.fetch(ids).ids), connector.fetch(ids).payloads


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_collection(encoder, connector, form):
    """Ids, texts, chosen metadata and their types; a filter finds them."""
    named: dict[str, Any] = {
        "id_field": "key",
        "text_field": "body",
        "metadata_fields": ["lang", "year"],
    }
    assert ingest(in_form(form), encoder, connector, **named).written == 6
    expected = MemoryConnector(collection="x")
    docs = [
        Document(str(row["key"]), row["body"], {"lang": row["lang"], "year": row["year"]})
        for row in ROWS
    ]
    ingest(docs, encoder, expected)
    assert records(connector) == records(expected)
    hits = search(connector, encoder, "text", filter=F("year") > 2003)
    assert {hit.id for hit in hits} == {"4#0", "5#0"}
    assert ingest(in_form(form), encoder, connector, **named).unchanged == 6


@pytest.mark.parametrize("form", ["table", "dicts", "documents"])
def test_a_prefix_stands_before_each_id(encoder, connector, form):
    """As before those of files, so that two sources with equal names share a collection."""
    rows: list[dict[str, Any]] = [
        {"id": 1, "text": "one"},
        {"id": 2, "text": None},
        {"text": "no id"},
    ]
    source = {
        "table": pa.Table.from_pylist(rows),
        "dicts": rows,
        "documents": [Document(row.get("id"), row["text"]) for row in rows],
    }[form]
    opened = open_source(source, encoder, reading=Options(id_prefix="x/"))
    assert isinstance(opened, DocumentSource)
    assert [item.id for item in opened.items] == ["x/1", "x/2", None]


class Kind(enum.StrEnum):
    """As people define them."""

    NEWS = "news"


class Plain(str, enum.Enum):  # noqa: UP042 - its text is the name, unlike that of a StrEnum
    """As people defined them before."""

    NEWS = "news"


VALUES = {
    "day": (date(2024, 5, 1), "2024-05-01"),
    "moment": (datetime(2024, 5, 1, 12, tzinfo=UTC), "2024-05-01T12:00:00+00:00"),
    "time": (time(12, 30), "12:30:00"),
    "price": (Decimal("1.50"), 1.5),
    "digits": (Decimal("0.12345678901234567890"), "0.12345678901234567890"),
    "uuid": (UUID(int=7), "00000000-0000-0000-0000-000000000007"),
    "kind": (Kind.NEWS, "news"),
    "plain kind": (Plain.NEWS, "news"),
    "integer": (np.int32(3), 3),
    "float": (np.float64(0.5), 0.5),
    "flag": (np.bool_(1), True),
    "array": (np.array([1, 2]), [1, 2]),
    "moment64": (np.datetime64("2024-05-01T12:00:00.5", "ns"), "2024-05-01T12:00:00.500000"),
    "digits64": (np.datetime64("2024-05-01T12:00:00.000000001"), "2024-05-01T12:00:00.000000001"),
    "no moment": (np.datetime64("NaT", "ns"), None),
    "moments": (np.array(["2024-05-01T12"], "datetime64[ns]"), ["2024-05-01T12:00:00"]),
    "one moment": (np.array("2024-05-01T12", "datetime64[ns]"), "2024-05-01T12:00:00"),
    "pair": ((1, "a"), [1, "a"]),
    "nested": ({"days": [date(2024, 5, 1)]}, {"days": ["2024-05-01"]}),
    "nothing": (None, None),
}


@pytest.mark.parametrize("as_dict", [True, False])
@pytest.mark.parametrize("name", VALUES)
def test_values_are_converted_by_one_table(encoder, connector, name, as_dict):
    """In a dict and in a Document alike; the type is one that JSON has."""
    value, expected = VALUES[name]
    record = {"id": "a", "text": "t", "x": value}
    ingest([record if as_dict else Document("a", "t", {"x": value})], encoder, connector)
    stored = connector.fetch(["a#0"]).payloads[0]["x"]
    assert (stored, type(stored)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"bytes", "metadata field 'x' holds a bytes"),
        (float("nan"), "metadata field 'x' holds nan"),
        (Decimal("NaN"), "metadata field 'x' holds nan"),
        ({"y": [{1, 2}]}, "metadata field 'x.y' holds a set"),
        (1 << 70, "metadata field 'x' is a whole number beyond 64 bits"),
        ("a\ud800", "metadata field 'x' is not valid unicode"),
        (np.timedelta64(5, "ns"), "metadata field 'x' holds a timedelta64"),
        (np.array([5], "timedelta64[ns]"), "metadata field 'x' holds a timedelta64"),
        (np.datetime64("10000-01-01", "us"), "metadata field 'x' holds a datetime64"),
    ],
)
@pytest.mark.parametrize("as_dict", [True, False])
def test_what_json_lacks_is_a_dead_letter(encoder, connector, caplog, value, reason, as_dict):
    """It names document and field, and costs no other document."""
    in_dict = {"id": "bad", "text": "t", "x": value}
    bad = in_dict if as_dict else Document("bad", "t", {"x": value})
    good = Document("good", "t")
    report = ingest([bad, good], encoder, connector)
    assert (report.written, report.failed) == (1, 1)
    assert caplog.messages[0].startswith(f"bad: {reason}")


def test_nan_in_arrow_is_a_dead_letter_and_null_is_null(encoder, connector, caplog):
    """The same rule for columns."""
    table = pa.table({"id": [1, 2, 3], "text": ["a", "b", "c"], "x": [0.5, None, float("nan")]})
    assert ingest(table, encoder, connector).written == 2
    assert caplog.messages == ["3: metadata field 'x' holds nan, which is no number that JSON has"]
    assert connector.fetch(["2#0"]).payloads[0]["x"] is None


def beyond_python():
    """Columns of which Python can hold the first value alone."""
    offsets = pa.array([0, 2, 3], pa.int32()).buffers()[1]
    return {
        "year 10000": pa.array([0, 253402300800], pa.timestamp("s")),
        "infinity": pa.array([0, 2**63 - 1], pa.timestamp("us")),
        "out of the zone": pa.array([0, 253402300799], pa.timestamp("s", "Asia/Tokyo")),
        "no such zone": pa.array([0, 1], pa.timestamp("ns", "No/Where")),
        "not UTF-8": pa.Array.from_buffers(
            pa.string(), 2, [None, offsets, pa.py_buffer(b"ok\xff")]
        ),
    }


@pytest.mark.parametrize("name", beyond_python())
def test_a_value_that_python_lacks_costs_its_row(encoder, connector, caplog, name):
    """In a table, as in a file; whether it is the text, the id or something else."""
    column = beyond_python()[name]
    table = pa.table({"id": ["a", "b"], "text": ["one", "two"], "x": column})
    failed = 2 if name == "no such zone" else 1
    if failed == 1:
        assert ingest(table, encoder, connector).failed == 1
        assert "row 2: a value that cannot be read: " in caplog.text
    else:
        with pytest.raises(InputError, match="all 2 documents failed"):
            ingest(table, encoder, connector)


def test_batches_may_differ_in_their_columns(encoder, connector, caplog):
    """As dicts may: each row is taken by what it has."""
    batches = [
        pa.record_batch({"id": ["a"], "text": ["one"], "lang": ["en"]}),
        pa.record_batch({"id": ["b"], "text": ["two"], "year": [2024]}),
        pa.record_batch({"id": ["c"], "body": ["three"]}),
        pa.RecordBatch.from_arrays([pa.array([each]) for each in "dxy"], ["id", "text", "text"]),
    ]
    report = ingest(batches, encoder, connector)
    assert (report.written, report.failed) == (2, 2)
    assert connector.fetch(["b#0"]).payloads[0]["year"] == 2024
    assert caplog.messages == [
        "row 3: no field 'text'; fields: id, body (text_field=)",
        "row 4: two columns of the table have one name: id, text, text",
    ]


@pytest.mark.parametrize(
    ("id_", "stored"),
    [(5, "5"), (UUID(int=1), str(UUID(int=1))), (np.int64(6), "6"), (Plain.NEWS, "news")],
)
def test_an_id_that_is_no_text_becomes_one(encoder, connector, id_, stored):
    """Whole numbers and UUIDs, in every form."""
    ingest([Document(id_, "x")], encoder, connector)
    assert ingest([{"id": id_, "text": "x"}], encoder, connector).unchanged == 1
    assert connector.fetch([f"{stored}#0"]).ids


class Unreadable(dict):
    """As values are that ask something else when they are read, such as a database."""

    def items(self):
        raise LookupError("a private paragraph")


@pytest.mark.parametrize(
    "bad",
    [
        Document(None, "x"),
        Document(True, "x"),  # type: ignore[arg-type]
        Document(1.5, "x"),  # type: ignore[arg-type]
        Document("a", None),
        Document("a", 3),  # type: ignore[arg-type]
        Document("a", "x", "no dict"),  # type: ignore[arg-type]
        {"text": "no id"},
        {"id": "a"},
        {"id": "a", "text": None},
        {"id": "a", "text": "x", "price": Decimal("sNaN")},
        {"id": "a", "text": "x", "lazy": Unreadable(a=1)},
        7,
    ],
    ids=str,
)
def test_a_bad_record_costs_itself(encoder, connector, bad):
    """A dead letter, never an abort; and a run of nothing else says that all failed."""
    assert ingest([{"id": "good", "text": "x"}, bad], encoder, connector).failed == 1
    if bad != 7:
        with pytest.raises(InputError, match="the only document failed: "):
            ingest([bad], encoder, connector)


@pytest.mark.parametrize(
    "bad",
    [
        {"id": 1, "text": ["a private paragraph"]},
        {"id": ["a private paragraph"], "text": "x"},
        Document("a", "x", ["a private paragraph"]),  # type: ignore[arg-type]
        Document("a", {"body": "a private paragraph"}),  # type: ignore[arg-type]
        Document(np.array(["a private paragraph"]), "x"),  # type: ignore[arg-type]
        Document("a", "x", {"lazy": Unreadable(a=1)}),
    ],
    ids=str,
)
def test_no_log_line_holds_a_documents_text(encoder, connector, caplog, bad):
    """Nor a dead letter: values are told by their types."""
    assert ingest([bad, {"id": "good", "text": "x"}], encoder, connector).failed == 1
    assert " no " in caplog.text or "cannot be read: LookupError" in caplog.text
    assert "private" not in caplog.text


def test_a_run_in_which_all_fail_raises(encoder, connector, tmp_path):
    """It says how many, the first with its reason, and where the others are."""
    docs = [Document(f"d{at}", None) for at in range(3)]
    letters = tmp_path / "dead.jsonl"
    with pytest.raises(InputError, match=r"all 3 documents failed; the first: d0: .*no text.*dead"):
        ingest(docs, encoder, connector, dead_letters=letters)
    assert len(letters.read_text().splitlines()) == 3


def test_a_string_is_one_name(encoder, connector):
    """Where a list is due, its letters are not meant."""
    row = {"id": "a", "text": "x", "lang": "en", "l": 1}
    ingest([row], encoder, connector, metadata_fields="lang")
    payload = connector.fetch(["a#0"]).payloads[0]
    assert (payload["lang"], "l" in payload) == ("en", False)
    with pytest.raises(InputError, match="isin takes a list"):
        F("lang").isin("de")


def test_columns_are_checked_before_anything_is_read(encoder, connector):
    """A table without the id, the text, or a field that is named."""
    table = pa.table({"body": ["x"], "key": [1]})
    with pytest.raises(ConfigError, match="no column 'id'; name one: id_field=, of body, key"):
        ingest(table, encoder, connector)
    with pytest.raises(ConfigError, match="no column 'text'; there are body, key"):
        ingest(table, encoder, connector, id_field="key")
    with pytest.raises(ConfigError, match="no column 'lang'"):
        ingest(table, encoder, connector, id_field="key", text_field="body", metadata_fields="lang")


def test_two_columns_of_one_name_are_refused(encoder, connector):
    """Arrow would fail in its own words."""
    table = pa.Table.from_arrays([pa.array([each]) for each in "axy"], ["id", "text", "text"])
    with pytest.raises(ConfigError, match="two columns of the table have one name: id, text, text"):
        ingest(table, encoder, connector)


@pytest.mark.parametrize("one", [{"id": "a", "text": "x"}, Document("a", "x")], ids=["dict", "doc"])
def test_one_document_is_no_source(encoder, connector, one):
    """Iterating a dict would read its keys as paths."""
    with pytest.raises(InputError, match=r"many documents, not one .*: \[it\]"):
        ingest(one, encoder, connector)


@pytest.mark.parametrize("source", [None, 7, [7], [None, {"id": "a", "text": "x"}]], ids=str)
def test_what_is_no_source_is_refused_by_its_type(encoder, connector, source):
    """A variable that was not set, as a rule."""
    with pytest.raises(InputError, match="a source gives paths, Documents or Arrow batches, not"):
        ingest(source, encoder, connector)
