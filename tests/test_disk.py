"""What has its name is whole."""

import pytest

from m3connect.disk import aside
from m3connect.errors import M3ConnectError


def test_a_file_has_its_name_when_it_is_whole(tmp_path):
    """Until then the old content stands, and nothing is left beside the new one."""
    target = tmp_path / "deep" / "file.txt"
    for content in ("old", "new"):
        with aside(target) as path:
            path.write_text(content)
            assert not target.exists() or target.read_text() == "old"
        assert target.read_text() == content
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [InterruptedError, KeyboardInterrupt, ValueError])
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


def test_what_an_interrupted_run_left_is_no_part_of_the_next(tmp_path):
    """A killed process cannot clean up; the next one does."""
    (tmp_path / "folder.unfinished").mkdir()
    (tmp_path / "folder.unfinished" / "stale").touch()
    with aside(tmp_path / "folder") as path:
        path.mkdir()
        (path / "fresh").touch()
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["fresh"]


def test_a_full_disk_is_said(tmp_path, little_room):
    """The message names the file, how much is free, and what to do."""
    little_room(1000)
    with (
        pytest.raises(M3ConnectError, match=r"big could not be written .* are free .* Buy a disk"),
        aside(tmp_path / "big", "Buy a disk.") as path,
    ):
        path.write_bytes(bytes(10_000))
    assert list(tmp_path.iterdir()) == []
