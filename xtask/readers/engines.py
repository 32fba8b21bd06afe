"""Reads tables of a lake through Spark or ClickHouse: the rows of each as text, sorted.

argv: spark or chdb, then one JSON document with a list of
{"metadata": URI of the metadata file, "columns": [name, ...]}.
stdout: a list with, for each table, {"rows": ["a|b|c", ...]} or {"refused": "why"}.
"""

import glob
import json
import os
import shutil
import site
import sys
import tempfile


def as_text(value):
    return "\\N" if value is None else str(value)


def lines(rows):
    return sorted("|".join(as_text(value) for value in row) for row in rows)


def path_of(uri):
    return uri.removeprefix("file://")


class Spark:
    """Iceberg Java in Spark, with a catalog that is a directory of metadata files."""

    def __init__(self):
        from pyspark.sql import SparkSession

        self.home = tempfile.mkdtemp(prefix="pgcdc-spark-")
        jars = [
            jar
            for folder in site.getsitepackages()
            for jar in glob.glob(folder + "/**/iceberg-spark-runtime-3.5_2.12-*.jar", recursive=True)
        ]
        catalog = "spark.sql.catalog.lake"
        self.session = (
            SparkSession.builder.master("local[1]")
            .config("spark.ui.enabled", "false")
            .config("spark.jars", jars[0])
            .config("spark.driver.bindAddress", "127.0.0.1")
            .config("spark.driver.host", "127.0.0.1")
            .config("spark.sql.shuffle.partitions", "1")
            .config(catalog, "org.apache.iceberg.spark.SparkCatalog")
            .config(catalog + ".type", "hadoop")
            .config(catalog + ".warehouse", self.home)
            .getOrCreate()
        )
        self.session.sparkContext.setLogLevel("ERROR")
        self.number = 0

    def read(self, table):
        self.number += 1
        name = "t%d" % self.number
        folder = os.path.join(self.home, "read", name, "metadata")
        os.makedirs(folder)
        shutil.copy(path_of(table["metadata"]), os.path.join(folder, "v1.metadata.json"))
        with open(os.path.join(folder, "version-hint.text"), "w") as hint:
            hint.write("1")
        columns = ", ".join("`%s`" % column for column in table["columns"])
        rows = self.session.sql("SELECT %s FROM lake.read.%s" % (columns, name)).collect()
        return lines(rows)

    def close(self):
        self.session.stop()
        shutil.rmtree(self.home, ignore_errors=True)


class ClickHouse:
    """ClickHouse in this process. It reads below the directory in which it starts."""

    def __init__(self):
        os.chdir("/")

    def read(self, table):
        import chdb

        folder, name = os.path.split(path_of(table["metadata"]))
        root = os.path.dirname(folder)
        columns = ", ".join("`%s`" % column for column in table["columns"])
        place = os.path.join(os.path.basename(folder), name)
        sql = (
            "SELECT %s FROM icebergLocal('%s', 'Parquet', SETTINGS iceberg_metadata_file_path = '%s')"
            % (columns, root, place)
        )
        answer = chdb.query(sql, "JSONCompactEachRow").bytes().decode()
        return lines(json.loads(line) for line in answer.splitlines())

    def close(self):
        pass


def main():
    engine = {"spark": Spark, "chdb": ClickHouse}[sys.argv[1]]()
    answers = []
    for table in json.loads(sys.argv[2]):
        try:
            answers.append({"rows": engine.read(table)})
        except Exception as error:  # what an engine says of a table is what is asked
            answers.append({"refused": str(error)[:400]})
    engine.close()
    print(json.dumps(answers))


main()
