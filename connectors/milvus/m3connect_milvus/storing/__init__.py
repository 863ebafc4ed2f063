"""How one of our collections lies in two of Milvus'.

layout.py     their fields and indexes
store.py      reading and writing them, the description included
texts.py      texts of any length, in parts where a field is too short
facts.py      payloads as facts, and the two forms in which engines keep them
prefixes.py   a range as the few prefixes that cover it
keys.py       hashes for ids and values
"""
