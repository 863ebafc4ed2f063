"""From a name to a folder."""

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from m3connect.errors import CheckpointError, ConfigError
from m3connect.model import hub


def test_a_bundled_model_is_found_by_name():
    """m3-mini is installed as data; its name suffices."""
    folder = hub.resolve("m3-mini")
    assert folder == hub.bundled()["m3-mini"]
    assert (folder / "m3.json").is_file()


def test_a_folder_is_itself(tiny_m3):
    """A path to a folder is no name."""
    assert hub.resolve(str(tiny_m3)) == tiny_m3


@pytest.mark.parametrize("name", ["m3-maxi", "./nowhere", "/no/where", "a/b/c", ""])
def test_an_unknown_name_is_refused_without_asking_the_hub(name):
    """The message lists what is bundled."""
    with pytest.raises(ConfigError, match="m3-mini"):
        hub.resolve(name)


@pytest.fixture
def downloads(monkeypatch, tmp_path):
    """A hub whose repository holds the given files; the calls are recorded."""
    import fnmatch

    import huggingface_hub

    calls = []

    def repository(*files):
        def snapshot_download(name, *, revision, cache_dir, allow_patterns, ignore_patterns):
            calls.append((name, revision, cache_dir))
            for file in files:
                wanted = any(fnmatch.fnmatch(file, pattern) for pattern in allow_patterns)
                if wanted and not any(fnmatch.fnmatch(file, each) for each in ignore_patterns):
                    (tmp_path / file).parent.mkdir(exist_ok=True)
                    (tmp_path / file).touch()
            return str(tmp_path)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
        return calls

    return repository


NEEDED = ["config.json", "tokenizer.json", "sparse_linear.pt", "colbert_linear.pt"]
OTHERS = ["README.md", "imgs/a.jpg", "onnx/model.onnx", "onnx/config.json", "flax_model.msgpack"]


def test_only_what_is_needed_is_downloaded(downloads, tmp_path):
    """Weights in safetensors, the heads, the tokenizer; no second copy of the weights."""
    calls = downloads(*NEEDED, *OTHERS, "model.safetensors", "pytorch_model.bin")
    folder = hub.resolve("BAAI/some-m3", revision="v1", cache_dir=tmp_path / "cache")
    found = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert found == {*NEEDED, "model.safetensors"}
    assert calls == [("BAAI/some-m3", "v1", tmp_path / "cache")]


def test_pickled_weights_are_taken_where_there_are_no_others(downloads):
    """As for BAAI/bge-m3 itself."""
    downloads(*NEEDED, *OTHERS, "pytorch_model.bin")
    assert (hub.resolve("BAAI/bge-m3") / "pytorch_model.bin").is_file()


def test_a_repository_without_weights_is_refused(downloads):
    """The message says what was looked for."""
    downloads(*NEEDED)
    with pytest.raises(CheckpointError, match=r"neither safetensors nor pytorch_model\.bin"):
        hub.resolve("BAAI/empty")


def test_offline_and_not_cached_is_told(monkeypatch):
    """The hub's own words are kept."""
    import huggingface_hub

    def offline(*_, **__):
        raise LocalEntryNotFoundError("outgoing traffic has been disabled")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(CheckpointError, match="not in the cache: outgoing traffic"):
        hub.resolve("BAAI/bge-m3")
