"""The five distributions: one version, a licence in each, and they work without the source tree."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
VERSION = CORE["version"]
FOLDERS = [ROOT, *sorted((ROOT / "connectors").glob("*/")), ROOT / "models" / "m3-mini"]


def run(*command, **options):
    """What a command prints; its errors are the test's."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_ranges_follow_the_version():
    """Core and connectors ask for each other from this minor version to the next."""
    major, minor = VERSION.split(".")[:2]
    wanted = f">={major}.{minor},<{major}.{int(minor) + 1}"
    ranges = [
        re.search(r"m3connect[\w-]*([<>=].*?)\"", line)[1]
        for folder in FOLDERS
        for line in (folder / "pyproject.toml").read_text(encoding="utf-8").splitlines()
        if re.search(r"\"m3connect[\w-]*[<>=]", line)
    ]
    assert ranges == [wanted] * 6  # three extras of the core, three connectors


@pytest.mark.parametrize("folder", FOLDERS[1:4], ids=lambda folder: folder.name)
def test_each_connector_has_the_licence(folder):
    """The same text as the core's."""
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


@pytest.mark.slow
def test_the_wheels_work_without_the_source(tmp_path):
    """Built, installed into a fresh environment, they ingest a folder and find a document in it."""
    wheels, home = tmp_path / "wheels", tmp_path / "fresh"
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    # With the tools' own hatchling: five environments to build in would take longer than the rest.
    tools = {**os.environ, "PIP_NO_BUILD_ISOLATION": "0"}  # pip's way to say yes
    make_wheels = ("make", "--silent", "--old-file=setup", "wheels")
    settings = (f"BIN={Path(sys.executable).parent}", f"DIST={wheels}")
    run(*make_wheels, *settings, cwd=ROOT, env=tools)
    built = {path.name.split("-")[0]: path for path in wheels.iterdir()}
    assert len(built) == len(FOLDERS) == 5
    for path in built.values():
        assert path.name.split("-")[1] == VERSION
        assert any("/licenses/LICENSE" in name for name in zipfile.ZipFile(path).namelist())

    run(sys.executable, "-m", "venv", "--without-pip", str(home))
    python = str(home / "bin" / "python")
    into = (*pip, "--python", python, "install", "--no-compile")
    needed = [built[name] for name in ("m3connect", "m3connect_qdrant", "m3connect_m3_mini")]
    run(*into, *map(str, needed))
    others = [built[name] for name in built if built[name] not in needed]
    run(*into, "--no-deps", *map(str, others))

    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "keys.md").write_text("# Keys\n\nRotate the signing key every ninety days.\n")
    (notes / "soup.md").write_text("# Soup\n\nLeeks and potatoes, forty minutes.\n")
    environment = {name: os.environ[name] for name in os.environ if not name.startswith("PYTHON")}
    here = {"cwd": tmp_path, "env": environment}
    where = run(python, "-c", "import m3connect; print(m3connect.__file__)", **here)
    assert where.startswith(str(home))
    command = str(home / "bin" / "m3connect")
    target = ("--target", "qdrant", "--path", "data", "--collection", "notes")
    run(command, "ingest", "notes", *target, **here)
    found = run(command, "search", "how often do I rotate the key?", *target, "--json", **here)
    assert "signing key" in found.splitlines()[0]
