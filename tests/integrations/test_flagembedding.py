"""Code written for FlagEmbedding's BGEM3FlagModel runs on ours, with what the reference made of it."""

import inspect
import json
import pickle

import numpy as np
import pytest

from m3connect.errors import ConfigError, InputError
from m3connect.integrations.flagembedding import BGEM3FlagModel

KEYS = ["dense_vecs", "lexical_weights", "colbert_vecs"]
ALL = {"return_dense": True, "return_sparse": True, "return_colbert_vecs": True}
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def inputs(golden):
    """Texts, pairs, weights and length limit of the golden arrays."""
    return json.loads((golden / "inputs.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def expected(golden):
    """What FlagEmbedding made of them."""
    return np.load(golden / "pickle" / "expected.npz")


@pytest.fixture(scope="module")
def documented(golden):
    """What the calls of its documentation returned, on the same texts."""
    return json.loads((golden / "pickle" / "documented.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def lexical(expected):
    """Its lexical weights, as it returns them."""
    ends = np.cumsum(expected["sparse_lengths"])
    return [
        dict(
            zip(
                map(str, expected["sparse_indices"][end - length : end].tolist()),
                expected["sparse_values"][end - length : end].tolist(),
                strict=True,
            )
        )
        for end, length in zip(ends, expected["sparse_lengths"], strict=True)
    ]


@pytest.fixture(scope="module")
def vectors(expected):
    """Its token vectors, as it returns them."""
    return np.split(expected["multivector"], np.cumsum(expected["multivector_lengths"])[:-1])


@pytest.fixture(scope="module")
def model(golden):
    """The checkpoint that the arrays were made with."""
    return BGEM3FlagModel(str(golden / "pickle"), use_fp16=False, devices="cpu")


@pytest.fixture(scope="module")
def output(model, inputs):
    """Everything that the golden texts give."""
    return model.encode(inputs["texts"], batch_size=5, max_length=inputs["max_length"], **ALL)


def close(found, wanted):
    """Equal but for rounding, in shape and kind, too."""
    assert (np.shape(found), np.asarray(found).dtype) == (
        np.shape(wanted),
        np.asarray(wanted).dtype,
    )
    np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE)


@pytest.mark.golden
def test_a_list_of_texts_is_the_references(output, expected, lexical, vectors):
    """Keys, shapes, kinds of numbers and values of all three outputs."""
    assert list(output) == KEYS
    close(output["dense_vecs"], expected["dense"])
    assert [dict.keys(row) for row in output["lexical_weights"]] == [row.keys() for row in lexical]
    for found, wanted in zip(output["lexical_weights"], lexical, strict=True):
        assert found == pytest.approx(wanted, abs=TOLERANCE)
    assert len(output["colbert_vecs"]) == len(vectors)
    for found, wanted in zip(output["colbert_vecs"], vectors, strict=True):
        close(found, wanted)


@pytest.mark.golden
@pytest.mark.parametrize("method", ["encode", "encode_queries", "encode_corpus"])
def test_one_text_has_no_axis_of_texts(method, model, inputs, expected, lexical, vectors):
    """A string gives one vector, one mapping and one array, by every method."""
    row = 2
    found = getattr(model, method)(inputs["texts"][row], max_length=inputs["max_length"], **ALL)
    close(found["dense_vecs"], expected["dense"][row])
    assert found["lexical_weights"] == pytest.approx(lexical[row], abs=TOLERANCE)
    assert found["lexical_weights"]["no such id"] == 0
    close(found["colbert_vecs"], vectors[row])


@pytest.mark.golden
def test_the_documented_similarities(model, output, documented):
    """Dense product, lexical matching of all with all and of two, late interaction."""
    dense, sparse, vectors = (output[key] for key in KEYS)
    close(dense[:4] @ dense[4:].T, np.float32(documented["dense_similarity"]))
    wanted = np.float32(documented["lexical_similarity"])
    assert (wanted > 0.01).sum() > 5
    close(model.compute_lexical_matching_score(sparse[:4], sparse[4:]), wanted)
    of_two = model.compute_lexical_matching_score(sparse[1], sparse[1])
    assert isinstance(of_two, float)
    assert of_two == pytest.approx(documented["lexical_of_two"], abs=TOLERANCE)
    score = model.colbert_score(vectors[0], vectors[4]).item()
    assert score == pytest.approx(documented["colbert_of_two"], abs=TOLERANCE)


@pytest.mark.golden
def test_pairs_score_as_in_the_reference(model, inputs, expected, documented):
    """All five scores under the reference's names: lists for a list, numbers for one pair."""
    names = {
        "colbert": "multivector",
        "sparse+dense": "dense+sparse",
        "colbert+sparse+dense": "all",
    }
    pairs = [(inputs["texts"][one], inputs["texts"][two]) for one, two in inputs["pairs"]]
    limits = dict.fromkeys(("max_query_length", "max_passage_length"), inputs["max_length"])
    options = {"weights_for_different_modes": inputs["weights"], **limits}
    found = model.compute_score(pairs, batch_size=3, **options)
    assert list(found) == ["colbert", "sparse", "dense", "sparse+dense", "colbert+sparse+dense"]
    for name, scores in found.items():
        assert isinstance(scores, list)
        close(scores, expected[f"score_{names.get(name, name)}"])
    for scores, wanted in zip(
        model.compute_score(pairs, **limits).values(),
        documented["default_scores"].values(),
        strict=True,
    ):
        close(scores, wanted)
    pair = (inputs["texts"][5], inputs["texts"][6])
    for alone in (model.compute_score(pair, **limits), model.compute_score(list(pair), **limits)):
        assert alone == pytest.approx(documented["score_of_one_pair"], abs=TOLERANCE)
        assert all(type(score) is float for score in alone.values())
    one_mode = model.compute_score(pairs, **options | {"weights_for_different_modes": [0, 0, 2]})
    np.testing.assert_allclose(one_mode["colbert+sparse+dense"], found["colbert"], atol=1e-6)
    assert np.isnan(one_mode["sparse+dense"]).all()


def test_what_was_not_asked_for_is_none(model):
    """The defaults are the reference's: dense alone; a call goes before the constructor."""
    found = model.encode(["rivers"])
    assert [key for key in KEYS if found[key] is not None] == ["dense_vecs"]
    found = model.encode_corpus(["rivers"], return_dense=False, return_sparse=True)
    assert [key for key in KEYS if found[key] is not None] == ["lexical_weights"]


def test_no_texts_are_no_rows(model):
    """Nothing in, nothing out, where the reference fails or answers otherwise."""
    found = model.encode([], **ALL)
    assert found["dense_vecs"].shape == (0, 32)
    assert found["lexical_weights"] == found["colbert_vecs"] == []
    assert set(map(tuple, model.compute_score([]).values())) == {()}


@pytest.mark.golden
def test_weights_are_shown_by_token(model, output, documented):
    """Tokens with their weights; a list of one is the mapping itself, as in the reference."""
    ours = output["lexical_weights"][:4]
    for found, wanted in zip(model.convert_id_to_token(ours), documented["tokens"], strict=True):
        assert found == pytest.approx(wanted, abs=TOLERANCE)
    for one in (ours[:1], ours[0]):
        wanted = pytest.approx(documented["tokens_of_one"], abs=TOLERANCE)
        assert model.convert_id_to_token(one) == wanted
    with pytest.raises(InputError, match="no term 99999"):
        model.convert_id_to_token({"99999": 1.0})


def test_tokens_that_read_alike_keep_the_larger_weight(model, monkeypatch):
    """Neither order loses the weight that counts."""
    monkeypatch.setattr(BGEM3FlagModel, "encoder", _Alike(), raising=False)
    bare = object.__new__(BGEM3FlagModel)
    assert bare.convert_id_to_token([{"5": 0.5, "6": 0.2}, {"5": 0.2, "6": 0.5}]) == [
        {"the": 0.5},
        {"the": 0.5},
    ]


class _Alike:
    """A vocabulary in which everything reads the same."""

    tokenizer = property(lambda self: self)

    def term(self, index):
        return f"piece {index}"

    def decode(self, ids, skip_special_tokens):
        return "the"


@pytest.mark.golden
def test_instructions_go_before_the_texts_of_their_kind(golden, inputs, documented):
    """Queries get one, passages the other, other texts none."""
    told = BGEM3FlagModel(
        str(golden / "pickle"),
        use_fp16=False,
        devices="cpu",
        query_instruction_for_retrieval="find",
        query_instruction_format="{}: {}",
        passage_instruction_for_retrieval="read ",
    )
    for method, name in (
        ("encode_queries", "query"),
        ("encode_corpus", "passage"),
        ("encode", "neither"),
    ):
        found = getattr(told, method)(inputs["texts"][1])["dense_vecs"]
        close(found, np.float32(documented[name]))
    with pytest.raises(InputError, match="text 1 is NoneType"):
        told.encode_queries(["rivers", None])
    nothing = told.encode(inputs["texts"][:1], return_dense=False)
    assert nothing == dict.fromkeys(("dense_vecs", "lexical_weights", "colbert_vecs"))


@pytest.mark.golden
def test_vectors_are_cut_and_of_length_one_again(golden, inputs, documented):
    """``truncate_dim`` keeps the first dimensions of dense and token vectors."""
    cut = BGEM3FlagModel(str(golden / "pickle"), use_fp16=False, devices="cpu", truncate_dim=8)
    dense = cut.encode(inputs["texts"][:4])["dense_vecs"]
    close(dense, np.float32(documented["truncated_dense"]))
    found = cut.encode(inputs["texts"][2], **ALL)["colbert_vecs"]
    close(found, np.float32(documented["truncated_colbert"]))


def test_a_models_own_prefixes_go_before_queries(vary):
    """Queries are encoded as queries, alone and in pairs."""
    tiny = BGEM3FlagModel(str(vary(query_prefix="river: ")), devices="cpu", query_max_length=64)
    wanted = tiny.encoder.encode(["x"], kind="query", legs=("dense",)).dense
    close(tiny.encode_queries(["x"])["dense_vecs"], wanted)
    assert np.abs(tiny.encode(["x"])["dense_vecs"] - wanted).max() > 0.01
    pair = tiny.encoder.compute_score([("x", "y")], weights=(1, 1, 1))
    assert tiny.compute_score(("x", "y"))["dense"] == pytest.approx(pair["dense"][0], abs=1e-6)


def test_a_text_beyond_the_model_is_refused_by_its_number(model):
    """512 tokens are the default and more than this model takes; nothing is cut unasked."""
    long = "many words " * 100
    with pytest.raises(InputError, match="passage 1 has more than the 128 tokens"):
        model.encode(["short", long])
    assert model.encode(["short", long], max_length=128)["dense_vecs"].shape == (2, 32)


def test_the_signatures_are_the_references():
    """Names, order and defaults of FlagEmbedding 1.4, without its ``**kwargs``."""

    def parameters(name):
        return [
            parameter.name if parameter.default is parameter.empty else parameter.name + "="
            for parameter in inspect.signature(getattr(BGEM3FlagModel, name)).parameters.values()
        ][1:]

    rest = ["batch_size=", "max_length=", "return_dense=", "return_sparse=", "return_colbert_vecs="]
    assert parameters("encode") == ["sentences", *rest]
    assert parameters("encode_queries") == ["queries", *rest]
    assert parameters("encode_corpus") == ["corpus", *rest]
    assert parameters("compute_score") == [
        "sentence_pairs",
        "batch_size=",
        "max_query_length=",
        "max_passage_length=",
        "weights_for_different_modes=",
    ]
    assert parameters("compute_lexical_matching_score") == [
        "lexical_weights_1",
        "lexical_weights_2",
    ]
    assert parameters("colbert_score") == ["q_reps", "p_reps"]
    assert parameters("convert_id_to_token") == ["lexical_weights"]
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(BGEM3FlagModel).parameters.items()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    }
    assert list(defaults.items())[1:] == [
        ("normalize_embeddings", True),
        ("use_fp16", True),
        ("use_bf16", False),
        ("query_instruction_for_retrieval", None),
        ("query_instruction_format", "{}{}"),
        ("devices", None),
        ("pooling_method", "cls"),
        ("trust_remote_code", False),
        ("cache_dir", None),
        ("colbert_dim", -1),
        ("batch_size", 256),
        ("query_max_length", 512),
        ("passage_max_length", 512),
        ("return_dense", True),
        ("return_sparse", False),
        ("return_colbert_vecs", False),
        ("truncate_dim", None),
    ]


def test_unknown_arguments_are_refused_by_name(model):
    """What the reference accepts and ignores is an error that names it."""
    with pytest.raises(TypeError, match="'max_lenght'"):
        model.encode(["x"], max_lenght=8)
    with pytest.raises(TypeError, match="'device'"):
        BGEM3FlagModel("m3-mini", device="cpu")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalize_embeddings": False}, "normalize_embeddings=False"),
        ({"trust_remote_code": True}, "trust_remote_code=True"),
        ({"pooling_method": "mean"}, "pooling_method 'mean'.*'cls'"),
        ({"colbert_dim": 7}, "colbert_dim 7.*32 wide"),
        ({"truncate_dim": 0}, "truncate_dim must be at least 1"),
    ],
)
def test_what_is_not_done_here_is_refused(golden, options, message):
    """An argument that cannot be honoured is no argument that is ignored."""
    with pytest.raises(ConfigError, match=message):
        BGEM3FlagModel(str(golden / "pickle"), devices="cpu", **options)


def test_wrong_inputs_say_what_is_wrong(model):
    """Weights that are not three, and one text beside a list."""
    with pytest.raises(InputError, match="three numbers"):
        model.compute_score([("a", "b")], weights_for_different_modes=[1.0, 2.0])
    with pytest.raises(InputError, match="two texts or two lists"):
        model.compute_lexical_matching_score({"5": 1.0}, [{"5": 1.0}])


def test_it_travels_by_name(model):
    """Pickled and unpickled, it gives the same."""
    again = pickle.loads(pickle.dumps(model))
    close(again.encode(["x"])["dense_vecs"], model.encode(["x"])["dense_vecs"])
