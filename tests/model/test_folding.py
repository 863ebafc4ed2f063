"""Case folding of term ids."""

import numpy as np
from tokenizers import Tokenizer

from m3connect.model.folding import CaseFolding


def test_every_id_folds_to_its_lower_case_twin(golden):
    """Over the whole vocabulary: the twin where there is one, else the id itself."""
    tokenizer = Tokenizer.from_file(str(golden / "narrow" / "tokenizer.json"))
    vocabulary = tokenizer.get_vocab()
    expected = np.arange(len(vocabulary))
    for piece, id_ in vocabulary.items():
        expected[id_] = vocabulary.get(piece.lower(), id_)
    assert (expected != np.arange(len(vocabulary))).sum() > 5
    folding = CaseFolding(tokenizer)
    ids = np.random.default_rng(0).integers(0, len(vocabulary), (20, 7))
    np.testing.assert_array_equal(folding(ids), expected[ids])
    np.testing.assert_array_equal(folding(np.arange(len(vocabulary))), expected)
    np.testing.assert_array_equal(folding(ids), expected[ids])
