"""What a language model is asked, and the citations in what it writes."""

import asyncio
import json
import re

from hypothesis import given
from hypothesis import strategies as st

from m3connect.searching.citing import cited, cited_stream, prompt

TEXTS = st.lists(st.sampled_from(["[1]", "[2, 1]", "[7]", "[", "]", "[x]", "1", ",", " ", "a"]))


def together(parts):
    """Neighbouring texts as one."""
    told: list[str | int] = []
    for part in parts:
        if isinstance(part, str) and told and isinstance(told[-1], str):
            told[-1] += part
        else:
            told.append(part)
    return told


@given(TEXTS, st.data())
def test_citations_do_not_depend_on_how_the_stream_is_cut(parts, data):
    """However a text comes in, the same comes out, and nothing of it is lost."""
    text = "".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]

    async def streamed():
        async def stream():
            for piece in pieces:
                yield piece

        return [each async for each in cited_stream(stream(), 2)]

    def apart(match):
        return "".join(f"[{int(number)}]" for number in match[1].split(","))

    told = asyncio.run(streamed())
    assert together(told) == together(cited(text, 2))
    written = "".join(f"[{each}]" if isinstance(each, int) else each for each in told)
    assert written == re.sub(r"\[(\d+(?:\s*,\s*\d+)*)\]", apart, text)


@given(st.lists(st.text(), max_size=4), st.text(st.characters(exclude_characters="\n")))
def test_no_passage_ends_early(texts, question):
    """Whatever a document holds, its passage stays one JSON string on one line."""
    lines = prompt(question, texts).split("\n")
    assert lines[0] == "Passages:"
    assert [json.loads(line)["text"] for line in lines[1 : 1 + len(texts)]] == texts
    assert lines[-1] == f"Question: {question}"
