"""A collection anew, with another model, precision or set of representations: beside the old, then switched.

run.py       start here: claim, catch up, verify, switch; and the way back
twins.py     the old and the new collection: what one lacks, written and verified
passages.py  the passages of a collection: compared, encoded together, marked for the next ingestion
"""

from m3connect.reembedding.run import ReembedReport, RollbackReport, reembed, rollback

__all__ = ["ReembedReport", "RollbackReport", "reembed", "rollback"]
