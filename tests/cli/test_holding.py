"""Who is refused an embedded collection does not harm the process that holds it."""

import json
import subprocess
import sys

import pytest

from m3connect.connecting.registry import connect
from m3connect.ingestion import ingest
from m3connect.searching.search import search
from m3connect.testing.fakes import HashEncoder

COMMANDS = """
import json, sys
from m3connect import cli
from m3connect.connecting.registry import connect
from m3connect.cli.running import Services
from m3connect.errors import PermanentError
from m3connect.testing.fakes import HashEncoder
model = Services(connect, lambda *_, **__: HashEncoder())
target, path, source = sys.argv[1:]
where = ["--target", target, "--path", path, "--collection", "docs"]
codes = []
for command in (
    ["search", "any words", *where], ["doctor", *where], ["ingest", source, *where],
    ["search", "any words", *where],
):
    try:
        cli.main(command, model)
    except SystemExit as end:
        codes.append(end.code)
try:
    with connect(target, collection="docs", path=path) as second:
        second.count()
except PermanentError as error:
    codes.append(str(error))
print(json.dumps(codes))
"""


@pytest.mark.slow
@pytest.mark.parametrize("target", ["qdrant", "milvus"])
def test_a_refused_opener_does_not_harm_the_holder(tmp_path, target):
    """Held, refused to search, doctor, ingest and connect, the collection takes and gives on."""
    path, source = str(tmp_path / "data"), tmp_path / "source"
    source.mkdir()
    for n in range(30):
        (source / f"{n:02}.txt").write_text(f"number {n} of the first texts")
    encoder = HashEncoder()
    with connect(target, collection="docs", path=path) as holder:
        ingest(source, encoder, holder)
        holder.flush()
        command = [sys.executable, "-c", COMMANDS, target, path, str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
        *codes, message = json.loads(done.stdout.splitlines()[-1])
        assert codes == [1, 1, 1, 1]
        assert "in use by process" in message
        for n in range(30):
            (source / f"{n + 30}.txt").write_text(f"second part, text {n}")
        ingest(source, encoder, holder)
        holder.flush()
        assert holder.count() == 60
        assert search(holder, encoder, "second part, text 7")[0].payload["text"].endswith("text 7")
    with connect(target, collection="docs", path=path) as again:
        assert again.count() == 60
        assert len(search(again, encoder, "number 7 of the first texts", limit=60)) == 60
