"""Suites that need packages which are not ours run in an environment of their own, beside ours."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import tenacity

ROOT = Path(__file__).parents[2]
OUTSIDE = ROOT / "tests" / "outside"


def environment(name: str, ours: Sequence[str], needs: Sequence[str]) -> Path:
    """The interpreter of an environment, made once and kept until the projects' files change.

    Args:
        name: of its folder in ``.venv``.
        ours: paths of this repository, with extras, to be installed as they are.
        needs: further requirements.
    """
    folder = ROOT / ".venv" / name
    python, made = folder / "bin" / "python", folder / "made"
    projects = [ROOT / "pyproject.toml", *ROOT.glob("connectors/*/pyproject.toml")]
    if not made.exists() or made.stat().st_mtime < max(p.stat().st_mtime for p in projects):
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        editable = [option for path in ours for option in ("-e", path)]
        install(python, [*editable, *needs])
        made.touch()
    return python


@tenacity.retry(
    stop=tenacity.stop_after_attempt(4), wait=tenacity.wait_exponential(15), reraise=True
)
def install(python: Path, requirements: Sequence[str]) -> None:
    """What pip installs; a registry that fails for a moment is asked again.

    Raises:
        RuntimeError: pip failed each time; with the last thing that it printed.
    """
    pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    # Bytecode is left to what is imported, a fraction of what is installed.
    command = [*pip, "install", "--no-compile", *requirements]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{run.stdout[-1000:]}{run.stderr[-3000:]}")


def run_suite(
    python: Path, suite: str, where: Path, variables: Mapping[str, str], settings: str = ""
) -> str:
    """What pytest prints of one file of this folder; none of our settings or fixtures reach it.

    Args:
        python: of the environment.
        suite: the file's name without ``test_``.
        where: an empty folder.
        variables: of the process's environment, beside those that are there.
        settings: further lines of pytest's own.
    """
    file = where / "pytest.ini"
    file.write_text(f"[pytest]\n{settings}\n")
    command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", str(file)]
    options = [f"--rootdir={OUTSIDE}", f"--confcutdir={OUTSIDE}", "--import-mode=importlib"]
    run = subprocess.run(
        [*command, *options, str(OUTSIDE / f"test_{suite}.py")],
        cwd=where,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-2000:]
    assert " passed" in run.stdout
    return run.stdout
