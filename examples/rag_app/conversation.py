"""A question that leans on the ones before it, made to stand alone so that it can be searched for.

A chat model is asked to rewrite it. Without one a plain rule holds: a question that begins with "and" or
holds a word that points back ("it", "they", "that") is searched together with the last one that did not, or the first.
The words are those of English, German, French and Spanish.
"""

import re
from collections.abc import Sequence

from .endpoint import Endpoint

_FIRST = re.compile(r"(and|but|also|und|aber|auch|et|mais|aussi|y|pero|también)\b")
_BACK = re.compile(
    r"\b(its?|they|them|their|this|that|these|those|he|him|his|she|her|ones?|another"
    r"|er|sie|es|ihn|ihm|ihre?|ihnen|das|diese[rs]?|dort|dafür|damit|davon|dazu"
    r"|ils?|elles?|leur|celui|celle|cela|ça|ce|él|ell[ao]s?|es[ao]|esto)\b"
)
_REWRITE = (
    "Rewrite the last question so that it can be understood without the questions before it. Keep its "
    "language. If it already can be, repeat it. Reply with the question alone."
)


def leans(question: str) -> bool:
    """Whether a question points back, as far as its words tell.

    >>> leans("And on Sundays?"), leans("How is it charged?"), leans("How is the K2 charged?")
    (True, True, False)
    """
    asked = question.strip().lower()
    return bool(_FIRST.match(asked) or _BACK.search(asked))


def by_rule(question: str, before: Sequence[str]) -> str:
    """The question, behind the last one that stands alone where it leans on that; the first always does.

    >>> by_rule("When is it open?", ["Where is the hill depot?", "Is it far?"])
    'Where is the hill depot? When is it open?'
    """
    alone = [*before[:1], *(each for each in before[1:] if not leans(each))]
    return f"{alone[-1]} {question}" if alone and leans(question) else question


async def by_endpoint(question: str, before: Sequence[str], endpoint: Endpoint) -> str:
    """The question as a chat model rewrites it; raises EndpointError."""
    asked = "\n".join([*before[-6:], f"Last question: {question}"])
    pieces = endpoint.stream(_REWRITE, asked, max_tokens=100)
    return " ".join("".join([piece async for piece in pieces]).split()) or question
