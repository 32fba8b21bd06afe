"""One canonical Python value for a PostgreSQL text and for the Arrow value that should equal it.

Temporal values become numbers, because Python's own date types stop at the years 1 and 9999.
Floating point values become their bits, so that NaN equals NaN and -0.0 differs from 0.0.
"""

import re
import struct
import uuid
from decimal import Decimal, localcontext

import pyarrow as pa

MICROS = {"time": "time64[us]", "timestamp": "timestamp[us]"}


def parser(iceberg_type):
    """A function from PostgreSQL text to the canonical value of `iceberg_type`."""
    if iceberg_type.startswith("list<"):
        element = parser(iceberg_type[5:-1])
        return lambda text: array(text, element)
    if iceberg_type.startswith("decimal"):
        return Decimal
    return PARSERS[iceberg_type]


def float_bits(text):
    value = float(text)
    return "NaN" if value != value else struct.pack("<d", value)


def single_bits(text):
    value = float(text)
    return "NaN" if value != value else struct.pack("<f", value)


def days(text):
    """Days from 1970-01-01 in the proleptic Gregorian calendar, BC and far years included."""
    match = re.fullmatch(r"(\d+)-(\d\d)-(\d\d)( BC)?", text)
    year, month, day = (int(part) for part in match.groups()[:3])
    if match.group(4):
        year = 1 - year
    # Days from civil, with years that begin in March.
    year -= month <= 2
    era = year // 400
    of_era = year - era * 400
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468


def clock(text):
    match = re.fullmatch(r"(\d\d):(\d\d):(\d\d)(?:\.(\d+))?", text)
    hours, minutes, seconds = (int(part) for part in match.groups()[:3])
    fraction = int((match.group(4) or "").ljust(6, "0"))
    return ((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + fraction


def timestamp(text):
    match = re.fullmatch(r"(\d+-\d\d-\d\d) (\d\d:\d\d:\d\d(?:\.\d+)?)( BC)?", text)
    return days(match.group(1) + (match.group(3) or "")) * 86_400_000_000 + clock(match.group(2))


def timestamptz(text):
    return timestamp(text.replace("+00", "", 1))


def array(text, element):
    """A one-dimensional array literal as a tuple; NULL elements are None."""
    if not (text.startswith("{") and text.endswith("}")):
        raise ValueError(f"not a plain array: {text}")
    elements = []
    for match in re.finditer(r'"((?:[^"\\]|\\.)*)"|([^,{}]+)', text[1:-1]):
        quoted, bare = match.groups()
        if quoted is not None:
            elements.append(element(re.sub(r"\\(.)", r"\1", quoted)))
        else:
            elements.append(None if bare == "NULL" else element(bare))
    return tuple(elements)


PARSERS = {
    "boolean": lambda text: {"t": True, "f": False}[text],
    "int": int,
    "long": int,
    "float": single_bits,
    "double": float_bits,
    "date": days,
    "time": clock,
    "timestamp": timestamp,
    "timestamptz": timestamptz,
    "string": str,
    "uuid": str,
    "binary": lambda text: bytes.fromhex(text.removeprefix("\\x")),
}

ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\"}


def read_copy(path, parsers):
    """The rows of a file in COPY text format as tuples of canonical values."""
    rows = []
    # Newlines inside values are escaped; a bare carriage return is data.
    with open(path, encoding="utf-8", newline="\n") as lines:
        for line in lines:
            cells = line.rstrip("\n").split("\t") if parsers else []
            if len(cells) != len(parsers):
                raise ValueError(f"{path}: {len(cells)} cells for {len(parsers)} columns")
            rows.append(tuple(cell_value(cell, parse) for cell, parse in zip(cells, parsers)))
    return rows


def cell_value(cell, parse):
    if cell == "\\N":
        return None
    if "\\" in cell:
        cell = re.sub(r"\\(.)", lambda match: ESCAPES.get(match.group(1), match.group(1)), cell)
    return parse(cell)


def from_arrow(column, iceberg_type):
    """The canonical values of an Arrow column that holds `iceberg_type`."""
    if isinstance(column, pa.ChunkedArray):
        return [value for chunk in column.chunks for value in from_arrow(chunk, iceberg_type)]
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if iceberg_type.startswith("list<"):
        return lists_from_arrow(column, iceberg_type[5:-1])
    if iceberg_type in ("timestamp", "timestamptz", "time"):
        unit = column.type.unit
        factor = {"s": 1_000_000, "ms": 1_000, "us": 1}[unit]
        numbers = column.cast(pa.int64() if column.type.bit_width == 64 else pa.int32())
        return [None if value is None else value * factor for value in numbers.to_pylist()]
    if iceberg_type == "date":
        return column.cast(pa.int32()).to_pylist()
    if iceberg_type in ("float", "double"):
        bits = single_bits if iceberg_type == "float" else float_bits
        return [None if value is None else bits(value) for value in column.to_pylist()]
    if iceberg_type == "uuid":
        return [uuid_text(value) for value in column.to_pylist()]
    if iceberg_type.startswith("decimal"):
        with localcontext() as context:
            context.prec = 60
            return column.to_pylist()
    return column.to_pylist()


def lists_from_arrow(column, element_type):
    values = from_arrow(column.flatten(), element_type)
    rows, at = [], 0
    for length in column.value_lengths().to_pylist():
        if length is None:
            rows.append(None)
        else:
            rows.append(tuple(values[at : at + length]))
            at += length
    return rows


def uuid_text(value):
    if value is None or isinstance(value, str):
        return value
    return str(value if isinstance(value, uuid.UUID) else uuid.UUID(bytes=value))
