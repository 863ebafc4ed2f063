"""Ray Data: Parquet files of any size, encoded and written by every worker of a cluster.

Run: python examples/etl/ray_pipeline.py rows.parquet qdrant http://localhost:6333
Needs: pip install "m3connect[ray,qdrant]", and a database server that all workers reach.

Run it again at any time: documents that are in as they are are skipped. Workers that die are
replaced, and what they were doing is done again.
"""

import sys

import ray

from m3connect.integrations.arrow import Sink
from m3connect.integrations.ray import encode, write

path, target, url = sys.argv[1:4]
sink = Sink(target, "docs", url=url, encoder="m3-mini", index_fields={"lang": "keyword"})

documents = ray.data.read_parquet(path)
if "--stages" not in sys.argv:
    report = write(documents, sink)  # each task cuts, encodes and writes
else:
    # With GPUs: actors that keep the model loaded (num_gpus=1), and tasks that only write.
    report = write(encode(documents, sink, workers=1, num_cpus=0.5), sink, num_cpus=0.5)
print(f"{report.written} written, {report.unchanged} unchanged, {report.failed} failed")
