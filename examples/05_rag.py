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
from m3connect.searching.citing import INSTRUCTIONS, prompt

CORPUS = Path(__file__).parent / "data" / "tldr.jsonl"


def ask(content: str) -> str:
    """Send one chat request."""
    body = {"model": os.environ["OPENAI_MODEL"], "messages": [{"role": "user", "content": content}]}
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

content = f"{INSTRUCTIONS}\n\n{prompt(question, [hit.text for hit in hits])}"
print(ask(content) if os.environ.get("OPENAI_BASE_URL") else content)
