"""Runs one query in DuckDB over a table of a lake and prints what it cost (JSON).

`parquet` reads the files as they are, deletes not applied: the floor of a scan. `iceberg` reads the
table. Only the query is timed, not the start of Python or of DuckDB.
"""

import json
import resource
import sys
import time

import duckdb

extensions, how, directory, metadata, question = sys.argv[1:]
ducks = duckdb.connect(config={"extension_directory": extensions})
for name in ("avro", "iceberg"):
    ducks.sql(f"LOAD {name}")
if how == "parquet":
    # Two patterns: the files of init, and those of the stream.
    source = f"read_parquet(['{directory}/base/*/*.parquet', '{directory}/deltas/*.parquet'], union_by_name=true)"
else:
    source = f"iceberg_scan('{metadata.removeprefix('file://')}')"


def cpu():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


cpu_before, started = cpu(), time.perf_counter()
ducks.execute(question.replace("{t}", source)).to_arrow_table()
seconds = time.perf_counter() - started
json.dump(
    {
        "seconds": seconds,
        "cpu_seconds": cpu() - cpu_before,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    },
    sys.stdout,
)
