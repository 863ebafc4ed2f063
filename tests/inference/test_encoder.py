"""M3Encoder: every text has a defined result, whatever stands beside it."""

import itertools
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest

from m3connect.errors import CheckpointError, ConfigError, FingerprintMismatch, InputError
from m3connect.inference import M3Encoder, onnx_backend
from m3connect.searching import scoring
from m3connect.types import LEGS, Compression, Embeddings

TEXTS = [
    "The river rises in the hills, the river ends in the sea.",
    "Der Fluss mündet ins Meer.",
    "河流发源于山中。",
    "ينبع النهر من الجبال ويصب في البحر",
    "🚀 and ☕",
    "x",
    "",
    "many words " * 30,
]


@pytest.fixture(scope="module", params=["torch", "onnx"])
def encoder(request, tiny_m3):
    """The tiny model on both backends."""
    return M3Encoder.load(tiny_m3, backend=request.param, multivector_dtype="float32")


def assert_close(found, expected, tolerance=1e-6):
    """Equal but for rounding."""
    np.testing.assert_allclose(found.dense, expected.dense, rtol=0, atol=tolerance)
    np.testing.assert_array_equal(found.sparse.indptr, expected.sparse.indptr)
    np.testing.assert_array_equal(found.sparse.indices, expected.sparse.indices)
    np.testing.assert_allclose(
        found.sparse.values, expected.sparse.values, rtol=0, atol=10 * tolerance
    )
    np.testing.assert_array_equal(found.multivector.offsets, expected.multivector.offsets)
    np.testing.assert_allclose(
        found.multivector.vectors, expected.multivector.vectors, rtol=0, atol=tolerance
    )
    np.testing.assert_array_equal(found.n_tokens, expected.n_tokens)
    np.testing.assert_array_equal(found.truncated, expected.truncated)


@pytest.mark.parametrize("changes", [{}, {"pooling": "mean", "query_prefix": "river: "}])
def test_both_backends_agree(vary, changes):
    """ONNX Runtime and torch give the same to 1e-6 in float32, whatever the pooling."""
    folder = vary(**changes)
    encoders = [
        M3Encoder.load(folder, backend=backend, multivector_dtype="float32")
        for backend in ("onnx", "torch")
    ]
    assert [encoder.backend.name for encoder in encoders] == ["onnx", "torch"]
    assert_close(*(encoder.encode(TEXTS, kind="query") for encoder in encoders))


@pytest.mark.parametrize("budget", [1, 40, 10_000])
def test_a_text_alone_is_the_same_as_in_any_batch(encoder, budget):
    """Neither padding nor neighbours nor the order of texts change a result."""
    encoder.batch_tokens = budget
    together = encoder.encode(TEXTS)
    alone = Embeddings.concat([encoder.encode([text]) for text in TEXTS])
    assert_close(together, alone)
    assert_close(encoder.encode(TEXTS[::-1]), alone.take(np.arange(len(TEXTS))[::-1]))


@pytest.mark.parametrize("long", [0, 60, 10_000])
def test_batches_side_by_side_are_the_same_as_one_after_another(tiny_m3, monkeypatch, long):
    """To the last bit, wherever those that are too long to share the memory stand."""
    monkeypatch.setattr(onnx_backend, "_LONG", long)
    alone, many = (
        M3Encoder.load(tiny_m3, backend="onnx", batch_tokens=20, threads=threads)
        for threads in (1, 3)
    )
    assert (alone.backend.at_once, many.backend.at_once) == (1, 3)
    expected, found = alone.encode(TEXTS * 3), many.encode(TEXTS * 3)
    assert_close(found, expected, tolerance=0)


def test_a_batch_that_fails_beside_others_is_told(tiny_m3, monkeypatch):
    """Its error is raised, the other batches end, and the next call is whole."""
    encoder = M3Encoder.load(tiny_m3, backend="onnx", batch_tokens=20, threads=3)
    expected = encoder.encode(TEXTS)
    run, calls = encoder.backend._run, itertools.count()

    def failing(session, texts, legs):
        if next(calls) == 1:
            raise MemoryError("no room for a batch")
        return run(session, texts, legs)

    with monkeypatch.context() as patch:
        patch.setattr(encoder.backend, "_run", failing)
        with pytest.raises(MemoryError, match="no room"):
            encoder.encode(TEXTS)
    assert_close(encoder.encode(TEXTS), expected, tolerance=0)


def test_vectors_have_unit_length(encoder):
    """Dense vectors and every token vector are normalised."""
    found = encoder.encode(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(found.dense, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found.multivector.vectors, axis=1), 1, atol=1e-5)


def test_sparse_weights_are_those_a_database_takes(encoder):
    """Weights are positive, terms occur once a text, special tokens never."""
    sparse = encoder.encode(TEXTS).sparse
    assert (sparse.values > 0).all()
    for row in range(len(TEXTS)):
        indices = sparse[row].indices
        assert len(np.unique(indices)) == len(indices)
        assert not set(indices.tolist()) & {0, 1, 2, 3}


def test_no_texts_give_no_rows_of_the_right_widths(encoder):
    """An empty list is an empty batch that can be concatenated with others."""
    none = encoder.encode([])
    assert len(none) == 0
    assert none.legs == LEGS
    assert Embeddings.concat([none, encoder.encode(["x"])]) == encoder.encode(["x"])


def test_no_texts_have_no_identifiers(tiny_m3):
    """Where these are asked for, too."""
    assert len(M3Encoder.load(tiny_m3, backend="onnx", identifiers=True).encode([])) == 0


@pytest.mark.parametrize("legs", [["dense"], ["sparse"], ["multivector"], ["sparse", "dense"]])
def test_only_the_legs_that_were_asked_for(encoder, legs):
    """A representation that was not asked for is None, the others do not change."""
    found, whole = encoder.encode(TEXTS, legs=legs), encoder.encode(TEXTS)
    assert set(found.legs) == set(legs)
    for leg in legs:
        part, expected = getattr(found, leg), getattr(whole, leg)
        assert np.array_equal(part, expected) if leg == "dense" else part == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\n\t",
        "\u200b",
        "\x00",
        "a\x00b",
        "\ud800",
        "a\udfffb",
        "e\u0301",
        "שלום עולם",
        "👩‍👩‍👧‍👦",
        "</s><pad><s>",
        "word " * 20_000,
    ],
    ids=ascii,
)
def test_every_string_has_a_result(encoder, text):
    """Odd strings give finite vectors, at least one token vector, and the same result again."""
    found = encoder.encode([text])
    assert np.isfinite(found.dense).all()
    assert np.isfinite(found.multivector.vectors).all()
    assert len(found.multivector[0]) >= 1
    assert encoder.encode([text]) == found


def test_surrogates_have_a_stated_meaning(encoder):
    """A pair of surrogates is its character, a lone one is U+FFFD."""
    assert encoder.encode(["a \ud83d\ude80"]) == encoder.encode(["a 🚀"])
    assert encoder.encode(["a \ud83d b"]) == encoder.encode(["a \ufffd b"])


def test_white_space_at_the_end_does_not_count(encoder):
    """Tokenizers of one vocabulary differ on it, so it is dropped."""
    assert encoder.encode(["the river \n"]) == encoder.encode(["the river"])


def test_truncation_is_reported_per_text(encoder):
    """A text over the limit is cut to it, keeps its end token, and is marked."""
    long = "word " * 500
    found = encoder.encode(["x", long, "y"])
    assert found.truncated.tolist() == [False, True, False]
    assert found.n_tokens[1] == 128
    assert encoder.tokens(long)[-1] == "</s>"
    assert len(encoder.tokens(long)) == len(found.multivector[1]) == 127


def test_tokens_name_the_rows_of_the_multivector(encoder):
    """``tokens`` gives one piece for each token vector, the end token last."""
    found = encoder.encode(TEXTS)
    for row, text in enumerate(TEXTS):
        assert len(encoder.tokens(text)) == len(found.multivector[row])


def test_term_names_a_sparse_index(encoder):
    """``term`` gives the piece behind an index, and refuses others."""
    vocabulary = encoder.tokenizer.get_vocab()
    for index in encoder.encode(TEXTS).sparse.indices.tolist():
        assert vocabulary[encoder.term(index)] == index
    with pytest.raises(InputError, match="no term 99999"):
        encoder.term(99_999)


def test_a_prefix_leaves_no_terms_and_no_vectors(vary):
    """A model's prefix is put before the text, but only the text has terms and token vectors."""
    folder = vary(query_prefix="river: ", passage_prefix="sea: ")
    encoder = M3Encoder.load(folder, multivector_dtype="float32")
    plain = encoder.tokenizer.encode("hills").tokens
    found = encoder.encode(["hills"], kind="query")
    assert encoder.tokens("hills", kind="query") == plain[1:]
    assert len(found.multivector[0]) == len(plain) - 1
    assert {encoder.term(int(index)) for index in found.sparse.indices} <= set(plain[1:-1])
    assert found.n_tokens[0] == len(encoder.tokenizer.encode("river: hills").ids)
    assert not np.allclose(found.dense, encoder.encode(["hills"], kind="passage").dense)


def test_case_is_folded_where_the_checkpoint_says_so(vary):
    """With ``fold_case`` an upper-case term counts as its lower-case twin, with the larger weight."""
    plain, folding = M3Encoder.load(vary()), M3Encoder.load(vary(fold_case=True))
    text = "M m B b G g T t X x"
    expected = {}
    found = plain.encode([text]).sparse[0]
    for index, weight in zip(found.indices.tolist(), found.values.tolist(), strict=True):
        twin = plain.tokenizer.token_to_id(plain.term(index).lower())
        folded = index if twin is None else twin
        expected[folded] = max(weight, expected.get(folded, 0))
    assert len(expected) < len(found)
    result = folding.encode([text]).sparse[0]
    assert dict(zip(result.indices.tolist(), result.values.tolist(), strict=True)) == expected


def test_token_vectors_are_float16_unless_asked_otherwise(tiny_m3, encoder):
    """The default halves storage; it is the float32 result rounded."""
    half = M3Encoder.load(tiny_m3, backend=encoder.backend.name).encode(TEXTS).multivector.vectors
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half, encoder.encode(TEXTS).multivector.vectors.astype("f2"))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_lower_precision_stays_close(tiny_m3, dtype):
    """torch computes in half precision too; dense vectors then differ by some thousandths."""
    low = M3Encoder.load(tiny_m3, backend="torch", dtype=dtype).encode(TEXTS)
    full = M3Encoder.load(tiny_m3, backend="torch").encode(TEXTS)
    similarities = np.einsum("nd,nd->n", low.dense, full.dense)
    assert low.dense.dtype == np.float32
    assert (similarities > 0.99).all()


def test_pair_scores_are_those_of_their_representations(encoder):
    """They are the scores of the two texts' representations, whatever pairs stand around them."""
    pairs = [(TEXTS[0], TEXTS[1]), (TEXTS[5], TEXTS[7])]
    together = encoder.compute_score(pairs)
    for row, pair in enumerate(pairs):
        alone = encoder.compute_score([pair])
        assert all(abs(alone[kind][0] - together[kind][row]) < 1e-5 for kind in alone)
    one = encoder.encode([query for query, _ in pairs], kind="query")
    other = encoder.encode([passage for _, passage in pairs])
    for row in range(len(pairs)):
        expected = {
            "dense": scoring.dense_scores(one.dense[row], other.dense)[row],
            "sparse": scoring.sparse_scores(one.sparse[row], other.sparse)[row],
            "multivector": scoring.maxsim(one.multivector[row], other.multivector[row]),
        }
        for kind, score in expected.items():
            assert together[kind][row] == pytest.approx(score, abs=1e-5)
    assert all(len(scores) == 0 for scores in encoder.compute_score([]).values())
    weighted = encoder.compute_score(pairs, weights=np.array([1.0, 0.0, 0.0]))
    np.testing.assert_allclose(weighted["all"], weighted["dense"], atol=1e-6)
    for odd in ([("q", "p", "r")], [pairs[0], "qp"]):
        with pytest.raises(InputError, match=f"pair {len(odd) - 1} is"):
            encoder.compute_score(odd)
    with pytest.raises(InputError, match="2 weights"):
        encoder.compute_score(pairs, weights=(1, 1))


def test_numpys_integers_are_places(encoder):
    """As argsort gives them."""
    made = encoder.encode(TEXTS)
    assert made[np.int64(1)] == made[1]


def test_fingerprint_names_the_model(encoder, tiny_m3):
    """The fingerprint has what tells models apart, and both backends share it."""
    fingerprint = encoder.info.fingerprint
    assert fingerprint.model == "tiny-m3"
    assert (fingerprint.dense_width, fingerprint.multivector_width) == (32, 16)
    assert fingerprint.max_length == encoder.info.max_length == 128
    assert len(fingerprint.weights) == len(fingerprint.tokenizer) == 16
    assert fingerprint == M3Encoder.load(tiny_m3, backend="torch").info.fingerprint


def test_what_the_fingerprint_leaves_out_is_told(encoder):
    """Prefixes, folding and the numbers of token vectors change vectors: caches are told of them."""
    told = {encoder.info.preparation}
    for change in ({"query_prefix": "q: "}, {"passage_prefix": "q: "}, {"fold_case": True}):
        config = encoder.config.model_copy(update=change)
        other = M3Encoder(
            config,
            encoder.tokenizer,
            "tokenizer",
            encoder.backend,
            multivector_dtype="float32",
        )
        told.add(other.info.preparation)
    half = M3Encoder(encoder.config, encoder.tokenizer, "tokenizer", encoder.backend)
    assert len(told | {half.info.preparation}) == 5


def test_auto_takes_onnx_where_there_is_a_graph(tiny_m3, golden):
    """Without a wish, a checkpoint with a graph runs on ONNX Runtime and another on torch."""
    assert M3Encoder.load(tiny_m3).backend.name == "onnx"
    assert M3Encoder.load(tiny_m3, dtype="bfloat16").backend.name == "torch"
    assert M3Encoder.load(golden / "pickle").backend.name == "torch"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "jax"}, "backend 'jax'"),
        ({"dtype": "int4"}, "dtype 'int4'"),
        ({"backend": "onnx", "dtype": "float16"}, "float32 or int8, not float16"),
        ({"backend": "torch", "dtype": "int8"}, "bfloat16, not int8"),
        ({"backend": "onnx", "device": "tpu"}, "cannot use the device 'tpu'"),
        ({"backend": "torch", "device": "tpu"}, "'tpu' cannot be used"),
        ({"max_length": 2}, "takes from 3 to 128"),
        ({"max_length": 129}, "takes from 3 to 128"),
        ({"batch_tokens": 0}, "batch_tokens"),
    ],
)
def test_a_bad_option_is_refused(tiny_m3, options, message):
    """The message says which option, and what it may be."""
    with pytest.raises(ConfigError, match=message):
        M3Encoder.load(tiny_m3, **options)


def test_onnx_without_a_graph_says_how_to_make_one(golden):
    """A checkpoint that was not exported cannot run on ONNX Runtime."""
    with pytest.raises(ConfigError, match=r"m3connect export .* --format onnx"):
        M3Encoder.load(golden / "pickle", backend="onnx")


def test_a_graph_without_its_weights_is_an_error(vary):
    """The message names the graph."""
    folder = vary()
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"graph\.onnx cannot be opened"):
        M3Encoder.load(folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("one string",), "list of strings"),
        ((["fine", None],), "text 1 is NoneType"),
        ((["fine", 7],), "text 1 is int"),
        ((["fine"] * 100 + [None],), "text 100 is NoneType"),
    ],
)
def test_what_is_no_text_is_refused(encoder, arguments, message):
    """The message says which of the texts it is."""
    with pytest.raises(InputError, match=message):
        encoder.encode(*arguments)
    with pytest.raises(InputError, match=message):
        list(encoder.stream(*arguments))


def test_unknown_kinds_and_legs_are_refused(encoder):
    """They are never ignored."""
    with pytest.raises(InputError, match="kind 'document'"):
        encoder.encode(["x"], kind="document")
    for legs in (["colbert"], []):
        with pytest.raises(InputError, match=r"legs \[.*\]: known are"):
            encoder.encode(["x"], legs=legs)


def imported_by(work, modules):
    """Those of the modules that a process has imported which did some work with ``M3Encoder``."""
    code = (
        f"import sys; from m3connect.inference import M3Encoder; {work}; "
        f"print(*sorted({modules!r} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.split()


def test_encoding_on_onnx_imports_no_torch(tiny_m3):
    """The light backend stays light."""
    work = f"M3Encoder.load({str(tiny_m3)!r}).compute_score([('x', 'y')])"
    assert imported_by(work, {"torch", "transformers", "onnx", "huggingface_hub"}) == []


@pytest.mark.slow
def test_encoding_on_torch_does_not_load_its_compiler(golden):
    """It takes seconds, and nothing is compiled."""
    work = f"M3Encoder.load({str(golden / 'pickle')!r}, backend='torch').encode(['x', 'y z'])"
    assert imported_by(work, {"torch._dynamo", "torch._inductor"}) == []


@pytest.mark.slow
def test_without_torch_the_message_has_the_pip_line(golden):
    """A checkpoint that needs torch says so where it is missing."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from m3connect.errors import ConfigError\n"
        "from m3connect.inference import M3Encoder\n"
        "try: M3Encoder.load(sys.argv[1], backend=sys.argv[2])\n"
        "except ConfigError as error: print(error)"
    )
    for model, backend in ((golden / "pickle", "auto"), ("m3-mini", "torch")):
        run = subprocess.run(
            [sys.executable, "-c", code, str(model), backend],
            capture_output=True,
            text=True,
            check=True,
        )
        assert 'pip install "m3connect[torch]"' in run.stdout


def test_an_encoder_says_what_it_is(encoder):
    """Its model, its longest input and how it runs."""
    backend = encoder.backend.name
    assert repr(encoder) == f"<M3Encoder 'tiny-m3': up to 128 tokens; float32 on {backend}, cpu>"


def test_an_encoder_is_pickled_by_name(tiny_m3, monkeypatch):
    """No weights travel, its folder need not be the current one, and a process loads it once."""
    monkeypatch.chdir(tiny_m3.parent)
    encoder = M3Encoder.load(tiny_m3.name, backend="onnx", max_length=20, threads=1)
    content = pickle.dumps(encoder)
    monkeypatch.chdir("/")
    again = pickle.loads(content)
    assert len(content) < 2000
    assert again is not encoder
    assert again is pickle.loads(content)
    assert repr(again) == repr(encoder)
    assert_close(again.encode(TEXTS), encoder.encode(TEXTS))


def test_a_pickled_encoder_is_no_other_model(vary):
    """Where a worker's machine has other files under the name, it says so."""
    folder = vary(weights_hash="first")
    content = pickle.dumps(M3Encoder.load(folder))
    values = json.loads((folder / "m3.json").read_text())
    (folder / "m3.json").write_text(json.dumps(values | {"weights_hash": "second"}))
    with pytest.raises(FingerprintMismatch, match="another model here"):
        pickle.loads(content)


def test_an_encoder_of_parts_has_no_name(encoder):
    """It cannot be loaded elsewhere, and says what to do."""
    parts = M3Encoder(encoder.config, encoder.tokenizer, "", encoder.backend)
    with pytest.raises(ConfigError, match="save the model"):
        pickle.dumps(parts)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_a_forked_process_encodes(tiny_m3, backend):
    """With an encoder that has worked with two threads, which stay behind in the first process."""
    program = f"""
import os
from m3connect import M3Encoder
encoder = M3Encoder.load({str(tiny_m3)!r}, backend={backend!r}, threads=2)
texts = ["many words " * 30] * 40
encoder.encode(texts)
child = os.fork()
if not child:
    encoder.encode(texts)
    os._exit(7)
assert os.waitpid(child, 0)[1] == 7 << 8
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_other_limits_share_the_network(encoder):
    """Nothing is loaded again; texts are cut where the new limit says, here and unpickled."""
    short = encoder.limited(max_length=8, batch_tokens=16)
    assert short.backend is encoder.backend
    assert (short.info.max_length, short.batch_tokens) == (8, 16)
    for found in (short.encode(TEXTS), pickle.loads(pickle.dumps(short)).encode(TEXTS)):
        assert found.n_tokens.max() == 8
        assert found.multivector.vectors.dtype == np.float32
    assert encoder.encode(TEXTS).n_tokens.max() > 8
    with pytest.raises(ConfigError, match="max_length 9999"):
        encoder.limited(max_length=9999)


def test_what_is_kept_is_chosen_when_it_is_loaded(tiny_m3):
    """The whole model's embeddings, compressed; streamed, unpickled and with other limits alike."""
    kept = Compression(dense_width=8, sparse_top=3, multivector_width=6, multivector_pool=2)
    encoder = M3Encoder.load(tiny_m3, backend="onnx")
    small = M3Encoder.load(tiny_m3, backend="onnx", compression=kept)
    print_ = small.info.fingerprint
    assert (print_.dense_width, print_.multivector_width, print_.compression) == (8, 6, kept)
    for other in (small, small.limited(), pickle.loads(pickle.dumps(small))):
        for kind in ("query", "passage"):
            assert other.encode(TEXTS, kind=kind) == kept.of(encoder.encode(TEXTS, kind=kind), kind)
    assert Embeddings.concat(list(small.stream(TEXTS))) == small.encode(TEXTS)
    with pytest.raises(ConfigError, match="dense_width is 999"):
        M3Encoder.load(tiny_m3, backend="onnx", compression=Compression(dense_width=999))
