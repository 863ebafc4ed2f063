"""Files as text: what a library converts, within limits, and bytes whose encoding nobody names.

Imports nothing of the rest, so that a child process starts in a moment.

converter.py   a child process, which one file may end and the next does not notice
html.py        HTML as browsers parse it, to Markdown
office.py      pdf, office files, books, notebooks, mail and xml
encodings.py   which encoding a text is in
"""
