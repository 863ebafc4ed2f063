"""An assistant over a folder of documents: `make app`, or `python -m examples.rag_app serve`.

__main__.py      the two commands: serve, eval
library.py       the folder and its collection: add, list, remove, bring in line
conversation.py  a question that needs the one before it, made self-standing
answering.py     find passages, decide whether they answer, answer with citations
endpoint.py      a chat model behind any OpenAI-compatible endpoint
measuring.py     the table of citations, from a set of questions
web.py           the routes beside those of `m3connect serve`
page/            the page: HTML, CSS and a script, served as they are
"""
