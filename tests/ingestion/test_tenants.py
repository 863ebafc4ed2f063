"""Documents of many tenants in one collection: ingested, pruned, copied, made anew, switched."""

from dataclasses import replace

import pyarrow as pa
import pytest

from m3connect.errors import InputError, SchemaMismatch
from m3connect.filters import EVERY_TENANT, F
from m3connect.ingestion import NotPruned, ingest, open_source, plan
from m3connect.ingestion.ledger import sources
from m3connect.integrations.arrow import Sink, encode_batch
from m3connect.reembedding import reembed, rollback
from m3connect.searching.absence import unknown_fields, why_no_hits
from m3connect.searching.search import search
from m3connect.stores.memory import MemoryConnector
from m3connect.stores.parquet import ParquetConnector
from m3connect.testing.fakes import HashEncoder
from m3connect.transfer import copy, verify
from m3connect.types import Document


def docs(team, *names):
    return [Document(f"{team}/{name}", f"{name} one two three.", {"team": team}) for name in names]


def held(connector, where=EVERY_TENANT):
    return sorted(id_ for batch in connector.scan(where) for id_ in batch.ids)


@pytest.fixture
def teams():
    connector = MemoryConnector(collection="teams", tenant_field="team")
    ingest(docs("a", "x", "y"), HashEncoder(), connector, source_name="of a")
    ingest(docs("b", "x", "z"), HashEncoder(), connector, source_name="of b")
    return connector


def test_each_tenant_is_ingested_and_pruned_by_itself(teams):
    """A source's documents come and go; those of other tenants are neither read as its own nor counted."""
    encoder = HashEncoder()
    again = ingest(docs("a", "x", "y"), encoder, teams, source_name="of a")
    assert (again.unchanged, again.written) == (2, 0)
    with pytest.raises(NotPruned):
        ingest(docs("a", "x"), encoder, teams, source_name="of a", prune=True)
    pruned = ingest(
        docs("a", "x"), encoder, teams, source_name="of a", prune=True, max_delete_ratio=1.0
    )
    assert pruned.pruned == 1
    assert held(teams) == ["a/x#0", "b/x#0", "b/z#0"]
    assert held(teams, 'team == "a"') == ["a/x#0"]
    assert sources(teams) == {"of a": 1, "of b": 2}


def test_an_id_of_another_tenant_is_a_failure_that_says_what_to_do(teams, tmp_path):
    """Under the same id, or without a tenant, a document fails by name, and what is there stays."""
    before = held(teams)
    wrong = [
        Document("a/x", "b's text now.", {"team": "b"}),
        Document("b/new", "nobody's text."),
        *docs("b", "fine"),
    ]
    letters = tmp_path / "letters.jsonl"
    report = ingest(wrong, HashEncoder(), teams, source_name="of a", dead_letters=letters)
    assert (report.written, report.failed) == (1, 2)
    told = letters.read_text()
    assert "another tenant has this id" in told
    assert "--id-prefix" in told
    assert "one string in 'team'" in told
    assert held(teams) == [*before[:2], "b/fine#0", *before[2:]]
    assert teams.fetch(["a/x#0"]).payloads[0]["team"] == "a"


LONG = "\n\n".join(f"Paragraph {number} " + "word " * 100 for number in range(3))


@pytest.mark.parametrize("text", ["", LONG, "Short."], ids=["empty", "long", "short"])
@pytest.mark.parametrize("way", ["documents", "passages", "server"])
def test_a_document_takes_nothing_from_another_tenant(teams, text, way, monkeypatch):
    """Neither when it is empty, nor when it is refused half written: it fails, and says so in a plan, too."""
    encoder, before = HashEncoder(), held(teams)
    given = [Document("a/x", text, {"team": "b"}), *docs("b", "fine")]
    if way == "server":  # whose documents are looked up by a filter
        monkeypatch.setattr(
            type(teams), "capabilities", replace(MemoryConnector.capabilities, embedded=False)
        )
    planned = plan(open_source(given, encoder, source_name="of a"), teams)
    assert (planned.written, planned.empty, planned.failed, planned.deleted) == (1, 0, 1, 0)
    if way == "passages":
        monkeypatch.setattr(teams, "close", lambda: None)
        monkeypatch.setattr(
            "m3connect.integrations.arrow.connect", lambda target, *, collection: teams
        )
        rows = [{"id": each.id, "text": each.text, **each.metadata} for each in given]
        with Sink("memory", "teams", encoder=None, source_name="of a") as sink:
            report = sink.write(encode_batch(pa.Table.from_pylist(rows), encoder))
    else:
        report = ingest(given, encoder, teams, source_name="of a")
    assert (report.written, report.empty, report.failed, report.deleted) == (1, 0, 1, 0)
    assert held(teams) == sorted([*before, "b/fine#0"])
    assert held(teams, 'team == "a"') == ["a/x#0", "a/y#0"]


def test_searches_say_whose_documents_they_mean(teams):
    """By text, too; what explains an empty answer counts all without being asked."""
    encoder = HashEncoder()
    hits = search(teams, encoder, "x one", filter=F("team") == "b", expand="parent", limit=9)
    assert {hit.metadata["team"] for hit in hits} == {"b"}
    with pytest.raises(InputError, match=r'team == "a" \(--filter\)'):
        search(teams, encoder, "x one")
    where = F("team") == "c"
    assert why_no_hits(teams, where) == "no hits: the filter leaves none of 4 passages"
    assert unknown_fields(teams, where & F("nope").exists()) == ("nope",)


def test_what_is_made_of_it_keeps_tenants_apart(teams, tmp_path):
    """A copy, by way of a file, and a collection made anew with another model are of the same tenants."""
    path = str(tmp_path / "teams.parquet")
    with ParquetConnector(collection="teams", path=path) as file:
        copy(teams, file)
    copied = MemoryConnector(collection="copied")
    with ParquetConnector(collection="teams", path=path) as file:
        copy(file, copied)
    assert copied.describe().schema.tenant_field == "team"
    assert verify(teams, copied).equal
    with pytest.raises(InputError, match="tenants"):
        copied.count()

    report = reembed(teams, HashEncoder(seed=1), into="anew")
    assert (report.passages, report.switched) == (4, True)
    assert teams.describe().schema.tenant_field == "team"
    assert held(teams, 'team == "a"') == ["a/x#0", "a/y#0"]
    assert rollback(teams).differing == 0


def test_a_name_that_is_switched_keeps_asking(teams):
    """An alias of a collection with tenants has them, and one opened for tenants refuses one without."""
    alias = teams.beside("alias")
    alias.switch("teams")
    assert alias.count('team == "a"') == 2
    with pytest.raises(InputError, match="tenants"):
        alias.count()
    ingest(docs("a", "x"), HashEncoder(), made := MemoryConnector(collection="plain"))
    plain = MemoryConnector(collection="plain", tenant_field="team")
    plain.database = made.database
    with pytest.raises(SchemaMismatch, match="tenant_field: collection None, wanted 'team'"):
        plain.count('team == "a"')


def test_a_run_that_does_not_name_the_field_goes_on(teams):
    """The collection remembers it."""
    again = MemoryConnector(collection="teams")
    again.database = teams.database
    assert ingest(docs("c", "x"), HashEncoder(), again).written == 1
    assert again.count('team == "c"') == 1
