"""An embedded collection has one user at a time, and room on its disk."""

import shutil
import subprocess
import sys

import pytest

from m3connect.connecting.holding import SPARE_BYTES, Hold, check_space
from m3connect.errors import PermanentError, WritesRefused

HOLDER = """
import sys
from pathlib import Path
from m3connect.connecting.holding import Hold
folder = Path(sys.argv[1])
hold = Hold(folder, folder / "holder.lock", "x")
hold.acquire()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def hold(tmp_path):
    """Makes the right to open one folder, as often as it is called."""
    return lambda: Hold(tmp_path, tmp_path / "holder.lock", "x")


def test_one_at_a_time_in_this_process(hold):
    """A second one is refused and named, and has it after the first; releasing twice is fine."""
    first, second = hold(), hold()
    first.acquire()
    with pytest.raises(PermanentError, match="this very process"):
        second.acquire()
    first.release()
    first.release()
    second.acquire()
    second.release()


def test_a_dead_process_holds_nothing(hold, tmp_path):
    """The process that holds it is named; once it is killed the folder is free."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(PermanentError, match=f"process {other.pid} on"):
            hold().acquire()
        other.kill()
    hold().acquire()


def test_a_full_disk_is_told_before_it_is_written_to(tmp_path, monkeypatch):
    """What is free and what is needed are in the message; with enough room nothing is said."""
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=SPARE_BYTES + 10**6))
    check_space(tmp_path, 10**6, "x", "upsert")
    with pytest.raises(WritesRefused, match=r"68 MB left, 69 MB are needed"):
        check_space(tmp_path, 2 * 10**6, "x", "upsert")
