"""The frameworks' own suites, in an environment of their own: their requirements are not ours."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENT = ROOT / ".venv" / "outside"
SUITES = ("langchain", "haystack", "llama_index")
NEEDS = ("langchain-tests>=1.1,<2", "pytest-asyncio", "langchain", "pytest-socket")
OURS = (".[langchain,haystack,llama-index]", "connectors/qdrant", "connectors/milvus")


@pytest.fixture(scope="session")
def python(tmp_path_factory):
    """The environment's interpreter; made once and kept until the projects' files change."""
    python = ENVIRONMENT / "bin" / "python"
    made = ENVIRONMENT / "made"
    ours = [ROOT / "pyproject.toml", *ROOT.glob("connectors/*/pyproject.toml")]
    if not made.exists() or made.stat().st_mtime < max(p.stat().st_mtime for p in ours):
        subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
        options = [option for path in OURS for option in ("-e", path)]
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, *options, *NEEDS], cwd=ROOT, check=True)
        made.touch()
    return python


@pytest.mark.slow
@pytest.mark.xdist_group("frameworks")
@pytest.mark.parametrize("suite", SUITES)
def test_the_suite_of_a_framework_passes(python, suite, tmp_path):
    """Its own tests and ours for it pass, on memory, embedded Qdrant and Milvus Lite."""
    empty = tmp_path / "pytest.ini"
    empty.write_text("[pytest]\nasyncio_mode = auto\n")
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", empty]
    outside = ROOT / "tests" / "outside"
    run = subprocess.run(
        [*command, f"--rootdir={outside}", f"--confcutdir={outside}", outside / f"test_{suite}.py"],
        cwd=tmp_path,
        env=os.environ | {"HAYSTACK_TELEMETRY_ENABLED": "False", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-2000:]
    assert " passed" in run.stdout
    assert " skipped" not in run.stdout or suite == "haystack", run.stdout[-500:]
