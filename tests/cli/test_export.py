"""``m3connect export``: another layout of the same model."""

import pytest
from safetensors import SafetensorError

from m3connect import cli
from m3connect.inference import M3Encoder
from m3connect.model import saving


@pytest.fixture
def run(capsys, golden, tmp_path):
    """Run ``m3connect export`` on a published checkpoint; gives exit code, stdout and stderr."""

    def call(*arguments):
        with pytest.raises(SystemExit) as exit_:
            cli.main(["export", str(golden / "pickle"), *arguments])
        return exit_.value.code, *capsys.readouterr()

    return call


def test_the_export_is_used_like_the_original(run, tmp_path, golden):
    """It says what it wrote, and the result loads on ONNX Runtime as the same model."""
    code, out, _ = run("--format", "onnx", "--output", str(tmp_path / "exported"))
    assert code == 0
    assert str(tmp_path / "exported") in out
    exported = M3Encoder.load(tmp_path / "exported")
    assert exported.backend.name == "onnx"
    assert exported.info == M3Encoder.load(golden / "pickle").info


def test_a_folder_with_content_is_refused(run, tmp_path):
    """A usage error; nothing is overwritten."""
    (tmp_path / "mine.txt").write_text("mine")
    code, _, err = run("--format", "m3", "--output", str(tmp_path))
    assert code == 2
    assert "not empty" in err


def test_a_full_disk_leaves_nothing_in_the_way(run, tmp_path, monkeypatch):
    """What to do is told, and the same command works once there is room."""
    save = saving.save_safetensors

    def full(*_):
        raise SafetensorError("I/O error: File too large")

    arguments = ("--format", "m3", "--output", str(tmp_path / "new"))
    monkeypatch.setattr(saving, "save_safetensors", full)
    code, _, err = run(*arguments)
    assert (code, "Make room" in err) == (1, True)
    monkeypatch.setattr(saving, "save_safetensors", save)
    assert run(*arguments)[0] == 0
