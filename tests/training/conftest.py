"""A model small enough to train in a test, and data for it."""

import json

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from m3connect.model.config import BodyConfig, M3Config
from m3connect.model.m3 import M3Model
from m3connect.model.tokenize import TextTokenizer
from m3connect.training.collate import Collator
from m3connect.training.recipe import read_recipe
from m3connect.training.trainable import Trainable, save_trainable

WORDS = 60
TOY = """
output = "{folder}/run"
data_directory = "{folder}"
[model]
name = "{checkpoint}"
[[data]]
path = "examples.jsonl"
[batching]
query_length = 16
passage_length = 32
edges = [8, 32]
sizes = 8
[optimizer]
learning_rate = 3e-3
[run]
log_every = 1
"""
"""What the toy runs share; a module's ``SETTINGS`` are set on top of it."""


@pytest.fixture(autouse=True)
def _one_thread():
    """Small matrices gain nothing from threads."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer():
    """One token a word; begin 0, padding 1, end 2, unknown 3."""
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    vocabulary |= {f"w{number}": number + 4 for number in range(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


@pytest.fixture
def config():
    """Two layers, 16 wide."""
    body = BodyConfig(
        model_type="xlm-roberta",
        vocab_size=WORDS + 4,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=34,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        pad_token_id=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return M3Config(
        name="tiny",
        body=body,
        multivector_width=8,
        max_length=32,
        special_ids=(0, 1, 2, 3),
        weights_hash="random",
    )


@pytest.fixture
def model(config):
    """Seeded, and with a lexical head that is alive."""
    torch.manual_seed(0)
    model = M3Model(config)
    torch.nn.init.constant_(model.heads.sparse_linear.bias, 0.5)
    return model


@pytest.fixture
def collator(config, tokenizer):
    """At the model's full length."""
    text = TextTokenizer(tokenizer, config, config.max_length)
    return Collator(config, text, text, fold=None)


@pytest.fixture
def checkpoint(tmp_path, model, tokenizer):
    """The model as a folder."""
    source = tmp_path / "tokenizer"
    source.mkdir()
    tokenizer.save(str(source / "tokenizer.json"))
    save_trainable(Trainable(model, tokenizer, source), tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def examples(tmp_path):
    """48 examples: a query's words are also its positive's; three negatives each, and scores."""
    rng = np.random.default_rng(0)
    path = tmp_path / "examples.jsonl"
    with path.open("w") as lines:
        for number in range(48):
            topic = rng.integers(WORDS, size=3)
            record = {
                "query": words(topic),
                "pos": [words([*topic, *rng.integers(WORDS, size=2 + number % 7)])],
                "neg": [words(rng.integers(WORDS, size=6)) for _ in range(3)],
                "pos_scores": [1.0],
                "neg_scores": [0.3, 0.2, 0.1],
            }
            lines.write(json.dumps(record) + "\n")
    return path


@pytest.fixture
def development(tmp_path, examples):
    """A collection in which every example's positive is to be found."""
    folder = tmp_path / "dev"
    folder.mkdir()
    records = [json.loads(line) for line in examples.read_text().splitlines()]
    with (
        (folder / "corpus.jsonl").open("w") as corpus,
        (folder / "queries.jsonl").open("w") as queries,
    ):
        rows = ["query-id\tcorpus-id\tscore"]
        for number, record in enumerate(records):
            corpus.write(json.dumps({"_id": f"d{number}", "text": record["pos"][0]}) + "\n")
            queries.write(json.dumps({"_id": f"q{number}", "text": record["query"]}) + "\n")
            rows.append(f"q{number}\td{number}\t1")
    (folder / "qrels.tsv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def recipe_file(request, tmp_path, checkpoint, examples):  # examples: the file it names
    """The toy recipe with its module's settings, as a file."""
    path = tmp_path / "toy.toml"
    path.write_text(TOY.format(folder=tmp_path, checkpoint=checkpoint))
    settled = tmp_path / "recipe.json"
    plan = read_recipe(path, getattr(request.module, "SETTINGS", ()))
    settled.write_text(plan.model_dump_json(exclude_unset=True))
    return settled


@pytest.fixture
def recipe(recipe_file):
    """A function that reads the toy recipe with some keys set."""
    return lambda *overrides: read_recipe(recipe_file, overrides)


def words(numbers):
    """A text."""
    return " ".join(f"w{number}" for number in numbers)
