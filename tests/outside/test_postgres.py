"""Postgres -> dlt -> Qdrant, as the example does it. Run in an environment of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from m3connect import connect
from tests.servers.postgres import Server

pytest.importorskip("dlt")
EXAMPLE = Path(__file__).parents[2] / "examples" / "etl" / "postgres_to_qdrant.py"
ROWS = """
create table articles (id text primary key, title text, body text, updated_at timestamp);
insert into articles select 'a' || n, 'Title ' || n, 'Body of ' || n,
  timestamp '2026-01-01' + n * interval '1 day' from generate_series(1, 5) n
"""
UPDATE = "update articles set body = 'new', updated_at = '2026-10-01' where id = 'a2'"


@pytest.fixture
def database():
    """A server with five articles."""
    with Server() as server:
        server.run(ROWS)
        yield server


def test_the_example_follows_the_table(database, tmp_path):
    """All rows, then the one that changed."""

    def run():
        command = [sys.executable, EXAMPLE, database.url]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        with connect("qdrant", collection="articles", path=str(tmp_path / "qdrant")) as articles:
            batches = list(articles.scan())
        payloads = [payload for batch in batches for payload in batch.payloads]
        return done.stdout, {each["document_id"]: each for each in payloads}

    said, articles = run()
    assert said == "rows loaded: 5\n"
    assert [articles[f"a{n}"]["text"] for n in range(1, 6)] == [f"Body of {n}" for n in range(1, 6)]
    assert articles["a1"]["title"] == "Title 1"
    assert articles["a1"]["updated_at"].startswith("2026-01-02")
    database.run(UPDATE)
    said, changed = run()
    assert said == "rows loaded: 1\n"
    assert changed["a2"]["text"] == "new"
    assert {**changed, "a2": None} == {**articles, "a2": None}
