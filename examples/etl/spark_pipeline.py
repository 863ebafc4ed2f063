"""Spark: a frame of documents into a collection, each task with as many threads as it has cores.

Run: python examples/etl/spark_pipeline.py rows.parquet qdrant http://localhost:6333
Needs: pip install "m3connect[spark,qdrant]", Java 17, and a database server that all workers reach.
"""

import os
import sys

from pyspark.sql import SparkSession

from m3connect.integrations.arrow import Sink
from m3connect.integrations.spark import M3DataSource, write

path, target, url = sys.argv[1:4]
os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # else workers run the PATH's python3
spark = SparkSession.builder.appName("handbook").getOrCreate()
documents = spark.read.parquet(path).where("length(text) > 0")

report = write(documents, Sink(target, "docs", url=url, encoder="m3-mini"))
print(f"{report.written} written, {report.unchanged} unchanged, {report.failed} failed")

# The same in Spark's own words; from Scala or SQL, too, once the source is registered.
spark.dataSource.register(M3DataSource)
options = {"target": target, "collection": "docs", "url": url, "encoder": "m3-mini"}
documents.write.format("m3connect").mode("append").options(**options).save()
