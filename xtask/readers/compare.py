"""Compares the tables of a lake with their source, value by value, through two foreign readers.

Reads requests (JSON, one a line) from stdin and prints a report for each (JSON, one a line): for each
table the number of rows and a list of problems, empty when pyiceberg and DuckDB both read exactly the
source's rows. The source comes as files in PostgreSQL's COPY text format, made under pinned settings.
The one argument is the directory of DuckDB's extensions.
"""

import json
import os
import re
import sys
from collections import Counter

import duckdb
import pyarrow as pa
import pyarrow.fs
from pyiceberg.catalog.sql import SqlCatalog

import pgtext

SHOWN = 3


def main():
    ducks = {}
    for line in sys.stdin:
        print(json.dumps(compare(json.loads(line), ducks)), flush=True)


def compare(request, known_ducks):
    s3 = request.get("s3")
    catalog = open_catalog(request["catalog"], s3)
    place = json.dumps(s3)
    if place not in known_ducks:
        known_ducks[place] = open_ducks(sys.argv[1], s3)
    ducks = known_ducks[place]
    request["files"] = open_files(s3)
    report = {}
    for table in request["tables"]:
        problems = []
        rows = 0
        try:
            rows = check_table(table, request, catalog, ducks, problems)
        except Exception as error:  # a reader that fails is a finding like any other
            problems.append(f"{type(error).__name__}: {error}")
        report[table["name"]] = {"rows": rows, "problems": problems}
    catalog.engine.dispose()
    return report


def open_catalog(file, s3):
    properties = {"uri": f"sqlite:///{file}"}
    if s3:
        properties["s3.endpoint"] = s3["endpoint"]
        properties["s3.access-key-id"] = s3["key"]
        properties["s3.secret-access-key"] = s3["secret"]
        properties["s3.region"] = s3["region"]
    return SqlCatalog("pgcdc", **properties)


def open_ducks(extensions, s3):
    ducks = duckdb.connect(config={"extension_directory": extensions})
    for name in ("avro", "iceberg") + (("httpfs",) if s3 else ()):
        ducks.sql(f"LOAD {name}")
    if s3:
        endpoint = s3["endpoint"].removeprefix("http://")
        ducks.sql(
            f"CREATE SECRET (TYPE s3, KEY_ID '{s3['key']}', SECRET '{s3['secret']}', "
            f"REGION '{s3['region']}', ENDPOINT '{endpoint}', URL_STYLE 'path', USE_SSL false)"
        )
    return ducks


def open_files(s3):
    """The store by itself, past every Iceberg reader."""
    if not s3:
        return pyarrow.fs.LocalFileSystem()
    return pyarrow.fs.S3FileSystem(
        access_key=s3["key"],
        secret_key=s3["secret"],
        region=s3["region"],
        endpoint_override=s3["endpoint"],
    )


def check_table(table, request, catalog, ducks, problems):
    # a table's name may hold dots, so the namespace is split off here and not by the reader
    current = catalog.load_table(tuple(table["current"].split(".", 1)))
    changes = catalog.load_table(tuple(table["changes"].split(".", 1)))
    for read, key in ((current, "metadata_location"), (changes, "changes_metadata_location")):
        if read.metadata_location != table[key]:
            problems.append(f"catalog and manifest.json name different metadata in {key}")
    columns = table["columns"]
    types = {field.name: str(field.field_type) for field in current.schema().fields}
    if list(types) != columns:
        problems.append(f"columns {list(types)}, the source has {columns}")
        return 0
    parsers = [pgtext.parser(types[name]) for name in columns]
    source = pgtext.read_copy(table["source"], parsers)
    scan = current.scan().to_arrow()
    same_rows("pyiceberg", source, canonical(scan, columns, types), columns, problems)
    location = table["metadata_location"].removeprefix("file://")
    # Quoted names throughout: DuckDB folds case, so a position is safer than a name.
    read = ducks.execute("SELECT * FROM iceberg_scan(?)", [location]).to_arrow_table()
    read = read.rename_columns(columns)
    same_rows("DuckDB", source, canonical(read, columns, types), columns, problems)
    check_changes(table, changes, problems)
    if table.get("history"):
        check_history(current, ducks, problems)
    for each in (current, changes):
        check_shape(each, table, request, problems)
    return len(source)


def canonical(table, columns, types):
    """The rows of an Arrow table as tuples that compare equal exactly when the values do."""
    lists = [pgtext.from_arrow(table.column(name), types[name]) for name in columns]
    return list(zip(*lists)) if lists else [() for _ in range(table.num_rows)]


def same_rows(reader, source, lake, columns, problems):
    missing = Counter(source) - Counter(lake)
    extra = Counter(lake) - Counter(source)
    if missing or extra:
        problems.append(
            f"{reader}: {sum(missing.values())} rows of {len(source)} missing, "
            f"{sum(extra.values())} of {len(lake)} too many; "
            f"missing {shown(missing, columns)}, too many {shown(extra, columns)}"
        )


def shown(rows, columns):
    def short(value):
        text = repr(value)
        return text if len(text) < 60 else f"{text[:50]}... ({len(text)})"

    return [{c: short(v) for c, v in zip(columns, row)} for row in list(rows)[:SHOWN]]


def check_changes(table, changes, problems):
    wanted = ("__op", "__epoch", "__commit_lsn", "__xid", "__seq")
    log = changes.scan(selected_fields=wanted).to_arrow()
    counted = dict(Counter(log.column("__op").to_pylist()))
    expected = table.get("changes_expected")
    if expected is not None and counted != {op: n for op, n in expected.items() if n}:
        problems.append(f"changelog has {counted}, the source made {expected}")
    keys = list(zip(*(log.column(name).to_pylist() for name in wanted[2:])))
    if any(part is None for key in keys for part in key):
        problems.append("changelog rows without __commit_lsn, __xid or __seq")
    doubled = [key for key, n in Counter(keys).items() if n > 1]
    if doubled:
        problems.append(f"{len(doubled)} changes are twice in the changelog, e.g. {doubled[0]}")


def check_history(table, ducks, problems):
    """Every snapshot still reads, under the columns of its time, and has the rows that it says."""
    for snapshot in table.snapshots():
        totals = snapshot.summary.additional_properties
        rows = int(totals["total-records"]) - int(totals["total-position-deletes"])
        found = table.scan(snapshot_id=snapshot.snapshot_id).to_arrow()
        names = [field.name for field in table.schemas()[snapshot.schema_id].fields]
        if found.num_rows != rows or found.column_names != names:
            problems.append(
                f"pyiceberg: snapshot {snapshot.snapshot_id} has {found.num_rows} rows of "
                f"{found.column_names}, not {rows} of {names}"
            )
        location = table.metadata_location.removeprefix("file://")
        counted = ducks.execute(
            "SELECT count(*) FROM iceberg_scan(?, snapshot_from_id = ?)",
            [location, snapshot.snapshot_id],
        ).fetchone()[0]
        if counted != rows:
            problems.append(f"DuckDB: snapshot {snapshot.snapshot_id} has {counted} rows, not {rows}")


def position(snapshot):
    """The log position that a snapshot brought the table to; None for somebody else's snapshot."""
    text = snapshot.summary.additional_properties.get("pgcdc.lsn-to") if snapshot.summary else None
    if text is None:
        return None
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def check_shape(table, request_table, request, problems):
    """One snapshot per flush, no equality deletes, nobody else may expire files."""
    name = table.name()[-1]
    if table.properties.get("gc.enabled") != "false":
        problems.append(f"{name}: gc.enabled is {table.properties.get('gc.enabled')}")
    flushes = Counter()
    for snapshot in table.snapshots():
        summary = snapshot.summary.additional_properties if snapshot.summary else {}
        if summary.get("pgcdc.kind") in ("flush", "truncate"):
            flushes[int(summary["pgcdc.epoch"])] += 1
    directory = os.path.join(request["root"], request_table["path"], "deltas").removeprefix("s3://")
    selector = pyarrow.fs.FileSelector(directory, allow_not_found=True)
    files = [file.base_name for file in request["files"].get_file_info(selector)]
    files = [file for file in files if re.fullmatch(r"epoch=.*\.parquet", file)]
    epochs = {int(re.search(r"epoch=(\d+)", file).group(1)) for file in files}
    history = sorted(table.snapshots(), key=lambda snapshot: snapshot.sequence_number)
    reached = [position(s) for s in history if position(s) is not None]
    if reached != sorted(reached):
        problems.append(f"{name}: a snapshot moves the table backwards: {reached}")
    # a flush that died may leave files that nothing names; its successor takes other names
    # and a table that has forgotten snapshots has files of flushes it no longer tells of
    known = {snapshot.snapshot_id for snapshot in history} | {None}
    is_part = request["orphans"] or any(s.parent_snapshot_id not in known for s in history)
    is_matched = set(flushes) <= epochs if is_part else set(flushes) == epochs
    if any(n > 1 for n in flushes.values()) or not is_matched:
        problems.append(f"{name}: flush snapshots of epochs {sorted(flushes.elements())}, delta files of {sorted(epochs)}")
    snapshot = table.current_snapshot()
    for manifest in snapshot.manifests(table.io) if snapshot else []:
        for entry in manifest.fetch_manifest_entry(table.io):
            if int(entry.data_file.content) == 2:
                problems.append(f"{name}: equality delete file {entry.data_file.file_path}")


if __name__ == "__main__":
    pa.set_cpu_count(1)
    main()
