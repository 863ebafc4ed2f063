"""Random bodies of the two architectures, as transformers builds them."""

import torch

KINDS = ["bert", "xlm-roberta"]


def random_body(kind, **sizes):
    """Config and model in evaluation mode, seeded; transformers takes seconds to import."""
    from transformers import BertConfig, BertModel, XLMRobertaConfig, XLMRobertaModel

    torch.manual_seed(0)
    if kind == "bert":
        config = BertConfig(**sizes, type_vocab_size=2, pad_token_id=0)
        return config, BertModel(config, add_pooling_layer=False).eval()
    config = XLMRobertaConfig(**sizes, type_vocab_size=1, pad_token_id=1)
    return config, XLMRobertaModel(config, add_pooling_layer=False).eval()
