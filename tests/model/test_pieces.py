"""A tokenizer of the pieces that a text needs gives what the whole one gives."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from m3connect.errors import CheckpointError
from m3connect.inference import M3Encoder
from m3connect.model import pieces
from m3connect.model.checkpoint import read_tokenizer
from m3connect.model.hub import resolve
from m3connect.model.pieces import PieceTokenizer, open_tokenizer

ODD = [
    "",
    " ",
    "▁",
    "<mask>",
    "a <s> b",
    "\x00",
    "ﬁ㌕Ⅷ",
    "x" * 300,
    "中文字 日本語 한국어",
    "👍🏽 \u200b\ufeff",
]


@pytest.fixture(scope="module")
def whole():
    """The bundled model's tokenizer, and the hash of its file."""
    return read_tokenizer(resolve("m3-mini"))


@pytest.fixture
def opened():
    """The same, opened to start quickly."""
    pieces._open.cache_clear()
    found, _ = open_tokenizer(resolve("m3-mini"))
    assert isinstance(found, PieceTokenizer)
    return found


def ids(tokenizer, texts):
    """Each text's ids."""
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts))]


@given(texts=st.lists(st.text(max_size=40), max_size=3))
def test_any_text_gives_the_same_ids(whole, texts):
    """Also unknown characters, and pieces whose scores compete."""
    pieces._open.cache_clear()
    found, digest = open_tokenizer(resolve("m3-mini"))
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    assert (ids(found, texts), digest) == (ids(whole[0], texts), whole[1])


def test_odd_texts_give_the_same_ids(whole, opened):
    """Special tokens inside a text are left to the whole tokenizer."""
    for text in ODD:
        assert ids(opened, [text]) == ids(whole[0], [text])


def test_pieces_and_ids_are_the_same(whole, opened):
    """Both ways, and what is not there is None."""
    assert opened.get_vocab_size() == whole[0].get_vocab_size()
    for id_ in (-1, 0, 3, 4, 777, 250_000, 250_001, 250_002):
        piece = opened.id_to_token(id_)
        assert piece == (None if id_ < 0 else whole[0].id_to_token(id_))
        assert piece is None or opened.token_to_id(piece) == id_
    assert opened.token_to_id("no such piece") is opened.token_to_id("\U0010ffff") is None


def test_a_query_never_builds_the_whole_tokenizer(monkeypatch):
    """From encoding to the names of its terms; many texts do, and it is built once."""
    M3Encoder.load("m3-mini", threads=1)  # prepared by now
    pieces._open.cache_clear()
    built = []
    monkeypatch.setattr(pieces, "read_tokenizer", lambda at: built.append(at) or read_tokenizer(at))
    encoder = M3Encoder.load("m3-mini", threads=1)
    sparse = encoder.encode(["How do I rotate keys?"], kind="query").sparse
    assert [encoder.term(int(id_)) for id_ in sparse[0].indices]
    assert built == []
    for _ in range(3):
        encoder._text(["many words " * 200], "passage")
    assert len(built) == 1


def test_encoders_of_a_process_share_a_tokenizer(tiny_m3):
    """Whatever their backend; one that was replaced in its place is opened anew."""
    first, second = (M3Encoder.load(tiny_m3, backend=name) for name in ("onnx", "torch"))
    assert first.tokenizer is second.tokenizer


def test_a_small_tokenizer_is_opened_as_it_is(tiny_m3):
    """It is parsed sooner than looked up."""
    assert not isinstance(open_tokenizer(tiny_m3)[0], PieceTokenizer)


def test_another_kind_of_tokenizer_is_opened_as_it_is(tiny_m3, tmp_path, monkeypatch):
    """Pieces of bytes stand for any character, so the text does not name those that it needs."""
    monkeypatch.setattr(pieces, "_LARGE", 0)
    content = json.loads((tiny_m3 / "tokenizer.json").read_text())
    for byte_fallback, kind in ((False, PieceTokenizer), (True, Tokenizer)):
        folder = tmp_path / str(byte_fallback)
        folder.mkdir()
        model = content["model"]
        model["byte_fallback"] = byte_fallback
        known = range(len(model["vocab"]))
        content["added_tokens"] = [one for one in content["added_tokens"] if one["id"] in known]
        (folder / "tokenizer.json").write_text(json.dumps(content))
        for _ in range(2):
            pieces._open.cache_clear()
            assert isinstance(open_tokenizer(folder)[0], kind)


def test_a_missing_tokenizer_is_an_error(tmp_path):
    """As from the whole one."""
    with pytest.raises(CheckpointError, match=r"holds no tokenizer\.json"):
        open_tokenizer(tmp_path)
