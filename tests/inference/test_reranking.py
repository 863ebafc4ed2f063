"""Rerankers: a cross-encoder from a folder, and services in the two usual forms."""

import json
import math

import pytest

from m3connect.connecting.retry import RetryPolicy
from m3connect.errors import ConfigError, InputError, TransientError
from m3connect.inference.reranking import CrossEncoder, RerankService, load_reranker

httpx = pytest.importorskip("httpx")
QUICK = RetryPolicy(attempts=2, initial=0.0)


class Service:
    """Answers as a reranking service does: the score of a text is its length; the longest first."""

    def __init__(self, *, cohere=False):
        self.cohere = cohere
        self.asked = []
        self.first = []

    def __call__(self, request):
        if self.first:
            return httpx.Response(self.first.pop(0), json={"message": "not now"})
        body = json.loads(request.content)
        self.asked.append((str(request.url), body, request.headers.get("authorization")))
        texts = body["documents" if self.cohere else "texts"]
        rows = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
        name = "relevance_score" if self.cohere else "score"
        scored = [{"index": row, name: len(texts[row]) / 10} for row in rows]
        return httpx.Response(200, json={"results": scored} if self.cohere else scored)

    def reranker(self, url, **options):
        """A client of it; the URL without its query is the client's base, as in real life."""
        base = url.partition("?")[0].removesuffix("/rerank")
        client = httpx.Client(base_url=base, transport=httpx.MockTransport(self))
        return RerankService(url, client=client, policy=QUICK, **options)


@pytest.mark.parametrize("url", ["http://rerank:8080", "http://rerank:8080/rerank"])
def test_a_service_of_tei_scores_in_the_order_of_the_texts(url):
    """Its answer is sorted by score; ours is not."""
    service = Service()
    texts = ["xx", "xxxx", "x"]
    assert service.reranker(url)("query", texts) == [0.2, 0.4, 0.1]
    ((asked, body, _),) = service.asked
    assert asked == "http://rerank:8080/rerank"
    assert body == {"query": "query", "texts": texts, "truncate": True}


def test_a_service_in_coheres_form_gets_its_model():
    """The address names the route and the model."""
    service = Service(cohere=True)
    reranker = service.reranker("https://rerank.example/v2/rerank?model=rerank-v3.5")
    assert reranker("query", ["xx", "xxxx"]) == [0.2, 0.4]
    ((asked, body, _),) = service.asked
    assert asked == "https://rerank.example/v2/rerank"
    assert body == {
        "query": "query", "documents": ["xx", "xxxx"], "top_n": 2, "model": "rerank-v3.5",
    }  # fmt: skip


def test_many_passages_are_several_requests():
    """As many texts at once as services take by default."""
    service = Service()
    texts = ["x" * length for length in range(1, 71)]
    assert service.reranker("http://rerank")("q", texts) == [len(text) / 10 for text in texts]
    assert [len(body["texts"]) for _, body, _ in service.asked] == [32, 32, 6]
    assert service.reranker("http://rerank")("q", []) == []
    service.asked.clear()
    service.first = [413]  # it takes fewer at once
    assert service.reranker("http://rerank")("q", texts[:5]) == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert [len(body["texts"]) for _, body, _ in service.asked] == [2, 3]


def test_a_service_that_fails_says_how():
    """What passes is waited for; what does not is told by its kind."""
    service = Service()
    service.first = [429]
    assert service.reranker("http://rerank")("q", ["x"]) == [0.1]
    for statuses, error, words in (
        ([503, 503], TransientError, "not now"),
        ([401], ConfigError, "M3CONNECT_RERANKER_KEY"),
        ([404], ConfigError, "no reranker: it has no /rerank"),
        ([413], InputError, "not now"),
        ([200], InputError, "no index and score"),
    ):
        service.first = statuses
        with pytest.raises(error, match=words):
            service.reranker("http://rerank")("q", ["x"])


def test_the_key_is_the_environments(monkeypatch):
    """Or the one that is given."""
    monkeypatch.setenv("M3CONNECT_RERANKER_KEY", "from the environment")
    for given, sent in ((None, "from the environment"), ("given", "given")):
        reranker = load_reranker("http://rerank", api_key=given)
        assert isinstance(reranker, RerankService)
        assert reranker._wire._client.headers["authorization"] == f"Bearer {sent}"


@pytest.mark.slow
def test_what_is_no_cross_encoder_is_told(tmp_path):
    """A folder without a model."""
    pytest.importorskip("sentence_transformers")
    with pytest.raises(ConfigError, match="no cross-encoder"):
        load_reranker(str(tmp_path))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_a_cross_encoder_is_loaded_from_a_folder(tmp_path):
    """A small random cross-encoder scores pairs one by one as it does together."""
    pytest.importorskip("sentence_transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "blue", "sky", "green", "grass"]
    tokenizer = Tokenizer(models.WordLevel({w: n for n, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    ).save_pretrained(tmp_path)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=1,
        max_position_embeddings=32,
    )
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="nor a folder, nor a hub name"):
        load_reranker(f"{tmp_path}/mistyped")
    reranker = load_reranker(str(tmp_path), device="cpu")
    assert isinstance(reranker, CrossEncoder)
    pairs = [("blue sky", "sky"), ("green", "grass green"), ("blue", "blue")]
    together = reranker.score(pairs)
    assert len(set(together)) == 3
    assert together == pytest.approx(
        [reranker(query, [passage])[0] for query, passage in pairs], abs=1e-5
    )
    logits = reranker.logits(pairs)
    assert [1 / (1 + math.exp(-logit)) for logit in logits] == pytest.approx(together, abs=1e-5)
