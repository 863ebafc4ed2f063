"""An export is the same model in other files."""

import json
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from m3connect.errors import ConfigError
from m3connect.inference import M3Encoder
from m3connect.model.checkpoint import open_checkpoint
from m3connect.model.export import export
from m3connect.model.onnx_graph import build
from m3connect.model.weights import load_model

TEXTS = ["the river rises in the hills", "", "x 🚀"]


@pytest.mark.parametrize("layout", ["m3", "onnx", "bge-m3"])
def test_every_layout_gives_the_same_model(vary, tmp_path, layout):
    """Outputs, identity and all that is set about the model survive the export."""
    source = vary(pooling="mean", query_prefix="river: ", fold_case=True)
    export(open_checkpoint(source), layout, tmp_path / layout)
    before, after = M3Encoder.load(source, backend="torch"), M3Encoder.load(tmp_path / layout)
    assert after.config == before.config
    assert after.info == before.info
    found, expected = (each.encode(TEXTS, kind="query") for each in (after, before))
    np.testing.assert_allclose(found.dense, expected.dense, atol=1e-6)
    np.testing.assert_array_equal(found.sparse.indices, expected.sparse.indices)
    np.testing.assert_allclose(
        found.multivector.vectors.astype("f4"),
        expected.multivector.vectors.astype("f4"),
        atol=1e-3,
    )


def test_onnx_runs_without_us(tiny_m3):
    """Any ONNX Runtime opens the graph, finds its weights, and gives all three outputs."""
    onnx.checker.check_model(tiny_m3 / "graph.onnx", full_check=True)
    session = onnxruntime.InferenceSession(tiny_m3 / "graph.onnx")
    ids = np.array([[0, 9, 8, 2], [0, 7, 2, 1]])
    mask = (ids != 1).astype(np.int64)
    dense, sparse, multivector = session.run(None, {"input_ids": ids, "attention_mask": mask})
    with torch.inference_mode():
        expected = load_model(open_checkpoint(tiny_m3))(
            torch.from_numpy(ids), torch.from_numpy(mask).bool()
        )
    np.testing.assert_allclose(dense, expected.dense, atol=1e-6)
    np.testing.assert_allclose(sparse[mask == 1], expected.sparse[mask == 1], atol=1e-5)
    np.testing.assert_allclose(multivector[mask == 1], expected.multivector[mask == 1], atol=1e-6)


def test_onnx_can_leave_8_bits_out(tiny_m3, tmp_path):
    """In both precisions by default; without the graph in 8 bits it says how to make it."""
    checkpoint = open_checkpoint(tiny_m3)
    export(checkpoint, "onnx", tmp_path / "int8", dtype="int8")
    assert M3Encoder.load(tmp_path / "int8", dtype="int8").backend.choice.precision == "int8"
    export(checkpoint, "onnx", tmp_path / "float32", dtype="float32")
    assert not (tmp_path / "float32" / "graph.int8.onnx").exists()
    with pytest.raises(ConfigError, match="m3connect export"):
        M3Encoder.load(tmp_path / "float32", dtype="int8")
    with pytest.raises(ConfigError, match="m3 has no graph"):
        export(checkpoint, "m3", tmp_path / "m3", dtype="int8")
    with pytest.raises(ConfigError, match="none of float32, int8"):
        export(checkpoint, "onnx", tmp_path / "x", dtype="bfloat16")  # type: ignore[arg-type]


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("lengths", [[4], [3, 3], [5, 5, 2, 3, 3], [2, 4]])
def test_a_graph_that_takes_embeddings_is_the_same_network(tiny_m3, pooling, lengths):
    """Texts end to end, of any lengths, give what the padded network of torch gives."""
    checkpoint = open_checkpoint(tiny_m3)
    config = checkpoint.config.model_copy(update={"pooling": pooling})
    network = load_model(checkpoint)
    network.heads.pooling = pooling
    tensors = {name: tensor.numpy() for name, tensor in network.tensors().items()}
    words = tensors.pop("embeddings.word_embeddings.weight")
    options = onnxruntime.SessionOptions()
    options.add_external_initializers(
        list(tensors), [onnxruntime.OrtValue.ortvalue_from_numpy(each) for each in tensors.values()]
    )
    session = onnxruntime.InferenceSession(build(config, "rows").SerializeToString(), options)
    places = np.concatenate([np.arange(length) for length in lengths])
    ids = np.random.default_rng(0).integers(4, 99, len(places))
    dense, sparse, multivector = session.run(
        None, {"rows": words[ids], "places": places, "lengths": np.array(lengths)}
    )
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    padded = np.ones(mask.shape, np.int64)
    padded[mask] = ids
    with torch.inference_mode():
        expected = network(torch.from_numpy(padded), torch.from_numpy(mask))
    np.testing.assert_allclose(dense, expected.dense, atol=1e-6)
    np.testing.assert_allclose(sparse, expected.sparse[mask], atol=1e-5)
    np.testing.assert_allclose(multivector, expected.multivector[mask], atol=1e-6)


@pytest.mark.slow
def test_transformers_reads_the_published_layout(tiny_m3, tmp_path):
    """Body and tokenizer load there by their usual classes, without a missing weight."""
    from transformers import AutoModel, AutoTokenizer

    export(open_checkpoint(tiny_m3), "bge-m3", tmp_path / "published")
    body, loading = AutoModel.from_pretrained(
        tmp_path / "published", add_pooling_layer=False, output_loading_info=True
    )
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "published")
    inputs = tokenizer(TEXTS, return_tensors="pt", padding=True)
    with torch.inference_mode():
        states = body.eval()(**inputs).last_hidden_state[:, 0]
    dense = torch.nn.functional.normalize(states, dim=-1)
    expected = M3Encoder.load(tiny_m3).encode(TEXTS).dense
    np.testing.assert_allclose(dense, expected, atol=1e-6)


@pytest.mark.slow
def test_sentence_transformers_reads_the_dense_vector(vary, tmp_path):
    """Its queries and documents have our dense vectors, prefixes and pooling included."""
    from sentence_transformers import SentenceTransformer

    source = vary(pooling="mean", query_prefix="river: ", passage_prefix="sea: ")
    export(open_checkpoint(source), "sentence-transformers", tmp_path / "exported")
    model = SentenceTransformer(str(tmp_path / "exported"), device="cpu")
    encoder = M3Encoder.load(source)
    texts = [text for text in TEXTS if text]  # an empty one keeps the prefix's space there
    kinds: list[tuple[Literal["query", "passage"], Any]] = [
        ("query", model.encode_query),
        ("passage", model.encode_document),
    ]
    for kind, theirs in kinds:
        expected = encoder.encode(texts, kind=kind).dense
        np.testing.assert_allclose(theirs(texts), expected, atol=1e-5)


@pytest.mark.slow
def test_sentence_transformers_reads_the_token_vectors(tiny_m3, tmp_path):
    """Its multi-vector encoder gives our token vectors, without the first special token."""
    from sentence_transformers.multi_vector_encoder import MultiVectorEncoder

    export(open_checkpoint(tiny_m3), "sentence-transformers-multivector", tmp_path / "exported")
    model = MultiVectorEncoder(str(tmp_path / "exported"), device="cpu")
    expected = M3Encoder.load(tiny_m3, multivector_dtype="float32").encode(TEXTS).multivector
    for theirs in (model.encode_query(TEXTS), model.encode_document(TEXTS)):
        for row, found in enumerate(theirs):
            np.testing.assert_allclose(found, expected[row], atol=1e-5)


def test_prefixes_keep_a_model_from_sentence_transformers_token_vectors(vary, tmp_path):
    """What cannot be expressed is refused, with the ways out."""
    with pytest.raises(ConfigError, match="--format bge-m3"):
        export(
            open_checkpoint(vary(query_prefix="river: ")),
            "sentence-transformers-multivector",
            tmp_path / "exported",
        )


def test_nothing_is_overwritten(tiny_m3, tmp_path):
    """A folder with something in it is refused, and stays as it is."""
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        export(open_checkpoint(tiny_m3), "m3", tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_an_unknown_layout_is_refused(tiny_m3, tmp_path):
    """The message lists those that are known."""
    with pytest.raises(ConfigError, match="bge-m3"):
        export(open_checkpoint(tiny_m3), "gguf", tmp_path / "x")  # type: ignore[arg-type]


def test_a_tokenizer_without_notes_gets_some(tiny_m3, tmp_path):
    """FlagEmbedding looks up special tokens by their roles; the export names them."""
    export(open_checkpoint(tiny_m3), "bge-m3", tmp_path / "published")
    notes = json.loads((tmp_path / "published" / "tokenizer_config.json").read_text())
    roles = ("cls_token", "eos_token", "pad_token", "unk_token", "mask_token")
    assert [notes[role] for role in roles] == ["<s>", "</s>", "<pad>", "<unk>", "<mask>"]
