"""Answer a question from the best passages through any OpenAI-compatible endpoint.

Set OPENAI_BASE_URL, OPENAI_API_KEY and OPENAI_MODEL. Without them the script prints the prompt
that it would send.

Run: python examples/05_rag.py "how do I list files with their sizes?"
"""

import json
import os
import sys
import urllib.request
from pathlib import Path

from m3connect import M3Encoder, connect, ingest, search

CORPUS = Path(__file__).parent / "data" / "tldr.jsonl"
PROMPT = """Answer the question from the passages only. Name the passages you used by number.
If they do not hold the answer, say so.

{passages}

Question: {question}"""


def ask(prompt: str) -> str:
    """Send one chat request."""
    body = {"model": os.environ["OPENAI_MODEL"], "messages": [{"role": "user", "content": prompt}]}
    request = urllib.request.Request(
        f"{os.environ['OPENAI_BASE_URL'].rstrip('/')}/chat/completions",
        json.dumps(body).encode(),
        {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', '')}",
        },
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)["choices"][0]["message"]["content"]


question = sys.argv[1] if len(sys.argv) > 1 else "how do I list files with their sizes?"
encoder = M3Encoder.load("m3-mini")
with connect("qdrant", collection="rag") as collection:
    ingest(str(CORPUS), encoder, collection)
    hits = search(collection, encoder, question, mode="all", limit=4)

passages = "\n\n".join(f"[{hit.rank}] {hit.payload['text']}" for hit in hits)
prompt = PROMPT.format(passages=passages, question=question)
print(ask(prompt) if os.environ.get("OPENAI_BASE_URL") else prompt)
