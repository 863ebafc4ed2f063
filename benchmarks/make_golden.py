"""Make the golden arrays of tests/golden: what FlagEmbedding makes of small random checkpoints.

    python benchmarks/make_golden.py tests/golden

Run it in an environment of its own with FlagEmbedding 1.4 and transformers 4 (it does not import
m3connect). Each checkpoint is an XLM-R body with random weights in the published layout of
BAAI/bge-m3, written by transformers and torch themselves; beside it lies ``expected.npz``, and beside
the first ``documented.json``.
"""

# ruff: noqa: RUF001, S106 - texts of many scripts; token names are no passwords

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

MAX_LENGTH = 48
WEIGHTS = [0.4, 0.2, 0.4]

TEXTS = [
    "What is BGE M3?",
    "BM25 ranks documents by the terms that they share with a query, and by nothing else.",
    "The river rises in the hills, the river runs through the town, the river ends in the sea.",
    "Der Fluss entspringt in den Bergen und mündet nach dreihundert Kilometern ins Meer.",
    "La rivière prend sa source dans les montagnes et se jette dans la mer.",
    "Река берёт начало в горах и впадает в море.",
    "ينبع النهر من الجبال ويصب في البحر",
    "הנהר נובע בהרים ונשפך אל הים",
    "नदी पहाड़ों से निकलती है और समुद्र में गिरती है।",
    "河流发源于山中，最后流入大海。",
    "川は山に源を発し、海に注ぐ。",
    "แม่น้ำไหลจากภูเขาลงสู่ทะเล",
    "강은 산에서 시작하여 바다로 흐른다.",
    "İstanbul Boğazı iki denizi birleştirir.",
    "Order AX-4711/b shipped; error 0x80070057 came up again at line 42.",
    "🚀 emoji and ☕ signs, e\u0301 decomposed, ﬁ ligature",
    "",
    " ",
    "x",
    "many words " * 60,
    "trailing space and newline \n",
]
PAIRS = [(0, 1), (2, 2), (3, 4), (5, 6), (9, 10), (14, 14), (0, 16), (2, 19), (19, 2), (15, 18)]


@dataclass(frozen=True)
class Case:
    """One checkpoint."""

    name: str
    seed: int
    safetensors: bool
    multivector_width: int
    heads_in_half: bool


CASES = [
    Case("pickle", 1, safetensors=False, multivector_width=32, heads_in_half=True),
    Case("safetensors", 2, safetensors=True, multivector_width=32, heads_in_half=False),
    Case("narrow", 3, safetensors=False, multivector_width=16, heads_in_half=False),
]


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A small Unigram tokenizer with XLM-R's special ids and pre-tokenisation."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer.train_from_iterator(
        # Emoji are left out, so that there are unknown pieces.
        [text for text in TEXTS if "🚀" not in text],
        trainers.UnigramTrainer(vocab_size=500, special_tokens=special, unk_token="<unk>"),
    )
    tokenizer.add_special_tokens(["<mask>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
    )


def make_checkpoint(case: Case, folder: Path) -> None:
    """Body by transformers, heads by torch, all random."""
    torch.manual_seed(case.seed)
    tokenizer = make_tokenizer()
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=130,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        initializer_range=0.3,  # far from uniform attention
    )
    body = XLMRobertaModel(config)
    with torch.no_grad():
        for parameter in body.parameters():
            if parameter.ndim == 1:  # biases and LayerNorms are 0 and 1 otherwise
                parameter.add_(torch.randn_like(parameter) * 0.1)
    body.save_pretrained(folder, safe_serialization=case.safetensors)
    tokenizer.save_pretrained(folder)
    for head, width in (("sparse_linear", 1), ("colbert_linear", case.multivector_width)):
        state = torch.nn.Linear(32, width).state_dict()
        if case.heads_in_half:
            state = {name: tensor.half() for name, tensor in state.items()}
        torch.save(state, folder / f"{head}.pt")


def expected(case: Case, folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    """What FlagEmbedding says."""
    from FlagEmbedding import BGEM3FlagModel

    model = BGEM3FlagModel(
        str(folder), use_fp16=False, devices="cpu", colbert_dim=case.multivector_width
    )
    found = model.encode(
        TEXTS,
        batch_size=5,
        max_length=MAX_LENGTH,
        return_dense=True,
        return_sparse=True,
        return_colbert_vecs=True,
    )
    lexical, vectors = found["lexical_weights"], found["colbert_vecs"]
    # One pair at a time: in a batch, FlagEmbedding lets padding take part in the maximum.
    scores = model.compute_score(
        [(TEXTS[query], TEXTS[passage]) for query, passage in PAIRS],
        batch_size=1,
        max_query_length=MAX_LENGTH,
        max_passage_length=MAX_LENGTH,
        weights_for_different_modes=WEIGHTS,
    )
    return {
        "dense": found["dense_vecs"],
        "sparse_lengths": np.array([len(row) for row in lexical]),
        "sparse_indices": np.array([int(id_) for row in lexical for id_ in row]),
        "sparse_values": np.array([value for row in lexical for value in row.values()]),
        "multivector_lengths": np.array([len(row) for row in vectors]),
        "multivector": np.concatenate(vectors),
        "score_dense": np.array(scores["dense"]),
        "score_sparse": np.array(scores["sparse"]),
        "score_multivector": np.array(scores["colbert"]),
        "score_dense+sparse": np.array(scores["sparse+dense"]),
        "score_all": np.array(scores["colbert+sparse+dense"]),
    }


def documented(folder: Path) -> dict[str, Any]:
    """What the calls of FlagEmbedding's documentation return, beside the arrays of ``expected``."""
    from FlagEmbedding import BGEM3FlagModel

    options = {"use_fp16": False, "devices": "cpu"}
    everything = {"return_dense": True, "return_sparse": True, "return_colbert_vecs": True}
    model = BGEM3FlagModel(str(folder), **options)
    first, second = (
        model.encode(texts, max_length=MAX_LENGTH, **everything) for texts in (TEXTS[:4], TEXTS[4:])
    )
    lexical = first["lexical_weights"]
    limits = {"max_query_length": MAX_LENGTH, "max_passage_length": MAX_LENGTH}
    told = BGEM3FlagModel(
        str(folder),
        query_instruction_for_retrieval="find",
        query_instruction_format="{}: {}",
        passage_instruction_for_retrieval="read ",
        **options,
    )
    cut = BGEM3FlagModel(str(folder), truncate_dim=8, **options)
    found = {
        "dense_similarity": first["dense_vecs"] @ second["dense_vecs"].T,
        "lexical_similarity": model.compute_lexical_matching_score(
            lexical, second["lexical_weights"]
        ),
        "lexical_of_two": model.compute_lexical_matching_score(lexical[1], lexical[1]),
        "colbert_of_two": model.colbert_score(
            first["colbert_vecs"][0], second["colbert_vecs"][0]
        ).item(),
        "tokens": model.convert_id_to_token(lexical),
        "tokens_of_one": model.convert_id_to_token(lexical[:1]),
        "score_of_one_pair": model.compute_score((TEXTS[5], TEXTS[6]), **limits),
        "default_scores": model.compute_score(
            [(TEXTS[query], TEXTS[passage]) for query, passage in PAIRS], batch_size=1, **limits
        ),
        "query": told.encode_queries(TEXTS[1])["dense_vecs"],
        "passage": told.encode_corpus(TEXTS[1])["dense_vecs"],
        "neither": told.encode(TEXTS[1])["dense_vecs"],
        "truncated_dense": cut.encode(TEXTS[:4])["dense_vecs"],
        "truncated_colbert": cut.encode(TEXTS[2], **everything)["colbert_vecs"],
    }
    plain: dict[str, Any] = json.loads(json.dumps(found, default=lambda value: value.tolist()))
    return plain


def main() -> None:
    """Write all cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    target = parser.parse_args().folder
    inputs = {"texts": TEXTS, "pairs": PAIRS, "weights": WEIGHTS, "max_length": MAX_LENGTH}
    target.mkdir(parents=True, exist_ok=True)
    (target / "inputs.json").write_text(json.dumps(inputs, ensure_ascii=False, indent=1) + "\n")
    for case in CASES:
        folder = target / case.name
        folder.mkdir(exist_ok=True)
        make_checkpoint(case, folder)
        np.savez_compressed(folder / "expected.npz", **expected(case, folder))
    calls = json.dumps(documented(target / CASES[0].name), ensure_ascii=False, indent=1)
    (target / CASES[0].name / "documented.json").write_text(calls + "\n")


if __name__ == "__main__":
    main()
