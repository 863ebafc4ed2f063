"""What holds a collection: the connector asks them all in the same words.

protocol.py        what is asked of an engine
client.py          the client's memory, and a server by URL
client_errors.py   what they raise, as ours
strict.py          what a server lets one request do
edge.py            the embedded engine, in a folder
edge_requests.py   the client's request models as the embedded engine's objects
"""
