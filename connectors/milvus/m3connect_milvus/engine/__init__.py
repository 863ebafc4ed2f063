"""Where the data is: a server by URL, or Milvus Lite in this process.

database.py   the connection, opened when first used, and how it is called
lite.py       Milvus Lite: one server a folder, shared by this process
engine.py     which Milvus answers, and what it can do
"""
