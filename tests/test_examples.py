"""The numbered examples run as they stand and stay short."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
# Those of the engines are run by tests/outside, in an environment of their own.
ETL = [FOLDER / "etl" / "incremental.py", FOLDER / "etl" / "polars_to_parquet.py"]
EXAMPLES = [*sorted(FOLDER.glob("[0-9]*.py")), *ETL]


@pytest.mark.slow
@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs(script, tmp_path, monkeypatch):
    """It exits with 0, prints something and warns of nothing."""
    monkeypatch.chdir(tmp_path)
    arguments = []
    if script.name.startswith("05"):  # the first pages of its corpus, so that the test stays quick
        corpus = (script.parent / "data" / "tldr.jsonl").read_text(encoding="utf-8")
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "tldr.jsonl").write_text("".join(corpus.splitlines(True)[:20]))
        script = Path(shutil.copy(script, tmp_path))
    if script.name.startswith("02"):  # a small folder of its own, so that the test stays quick
        (tmp_path / "notes").mkdir()
        (tmp_path / "notes" / "runs.md").write_text("An interrupted run is completed by the next.")
        arguments = ["notes"]
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_short(script):
    """Under eighty lines."""
    assert len(script.read_text(encoding="utf-8").splitlines()) < 80
