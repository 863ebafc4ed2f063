"""What has its name is whole."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from m3connect.disk import aside
from m3connect.errors import ConfigError, M3ConnectError


def test_a_file_has_its_name_when_it_is_whole(tmp_path):
    """Until then the old content stands, and nothing is left beside the new one."""
    target = tmp_path / "deep" / "file.txt"
    for content in ("old", "new"):
        with aside(target) as path:
            path.write_text(content)
            assert not target.exists() or target.read_text() == "old"
        assert target.read_text() == content
    assert list(target.parent.iterdir()) == [target]


def test_a_file_never_takes_the_place_of_a_folder(tmp_path):
    """What the folder holds stays, and nothing is left beside it."""
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.txt").touch()
    with (
        pytest.raises(ConfigError, match="papers' is a folder: name a file"),
        aside(tmp_path / "papers") as path,
    ):
        path.write_text("result")
    assert [path.name for path in tmp_path.rglob("*")] == ["papers", "thesis.txt"]


@pytest.mark.parametrize("name", ["", ".", "gone/.."])
def test_a_path_without_a_name_is_refused(tmp_path, name):
    """There is nothing that the result could be called."""
    with pytest.raises(ConfigError, match="no name to write to"):
        aside(tmp_path / name if name[1:] else Path(name)).__enter__()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [ConnectionResetError, KeyboardInterrupt, ValueError])
def test_what_fails_leaves_the_old_content(tmp_path, error):
    """Whatever ends the writing, a folder keeps what it had, and the half is gone."""
    target = tmp_path / "folder"
    (target / "old").mkdir(parents=True)

    def fail(path):
        (path / "new").mkdir(parents=True)
        raise error

    with pytest.raises(error), aside(target) as path:
        fail(path)
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "old"]


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    """Each writes its own half; both finish, the last has the name, and nothing is left."""
    target = tmp_path / "000000000.arrow"
    with aside(target) as first:
        first.write_text("first, begun")
        with aside(target) as second:
            second.write_text("second")
        assert target.read_text() == "second"
        assert first.read_text() == "first, begun"
    assert target.read_text() == "first, begun"
    assert list(tmp_path.iterdir()) == [target]


def test_two_processes_fill_one_folder(tmp_path):
    """What another living process is writing is not taken for a leftover."""
    program = (
        "import sys, pathlib\n"
        "from m3connect.disk import aside\n"
        "with aside(pathlib.Path(sys.argv[1])) as path:\n"
        "    path.write_text('other')\n"
        "    print('begun', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    target = tmp_path / "shard"
    command = [sys.executable, "-c", program, str(target)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "begun\n"
        with aside(target) as path:
            path.write_text("this")
        assert target.read_text() == "this"
        other.communicate()
    assert other.returncode == 0
    assert target.read_text() == "other"


def test_what_a_killed_process_left_is_removed(tmp_path):
    """It cannot clean up; the next writer does, and takes nothing of it."""
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    left = tmp_path / f"folder.{socket.gethostname()}.{gone.pid}.00.unfinished"
    left.mkdir()
    (left / "stale").touch()
    with aside(tmp_path / "folder") as path:
        path.mkdir()
        (path / "fresh").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "fresh"]


def test_what_cannot_be_written_is_said(tmp_path):
    """A parent that is a file is named; an error of a file that is read meanwhile passes as it is."""
    (tmp_path / "file").touch()
    with pytest.raises(M3ConnectError, match="file/shard could not be written"):
        aside(tmp_path / "file" / "shard").__enter__()
    with pytest.raises(FileNotFoundError, match="corpus"), aside(tmp_path / "out"):
        (tmp_path / "corpus").read_text()


def test_a_full_disk_is_said(tmp_path, little_room):
    """The message names the file, how much is free, and what to do."""
    little_room(1000)
    with (
        pytest.raises(M3ConnectError, match=r"big could not be written .* are free .* Buy a disk"),
        aside(tmp_path / "big", "Buy a disk.") as path,
    ):
        path.write_bytes(bytes(10_000))
    assert list(tmp_path.iterdir()) == []
