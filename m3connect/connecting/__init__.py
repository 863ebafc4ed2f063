"""What a connector is built of, and how one is opened by name.

registry.py   connect("qdrant", ...): connectors by name, from entry points
checks.py     what every connector refuses before its backend sees it
collection.py what a collection says of itself, and the messages when it will not do
deadline.py   requests end after the stated seconds
facts.py      what filters can find out about a payload
failures.py   what an HTTP status means, and what is advised
naming.py     how a connector shows itself, without its secrets
holding.py    one user at a time of an embedded collection; room on its disk
options.py    options are of the types that a connector says
overview.py   a collection at a glance
portions.py   what a request, or memory, can hold
reading.py    stored rows as embeddings, with the legs that were asked for
retry.py      the one retry policy
tenants.py    whose records a question is about, where a collection keeps tenants apart
ties.py       answers whose ties are settled by id
"""
