"""Batches written, and acknowledgements read, as CSV (RFC 4180) or XML, both in UTF-8. No I/O.

In both a file ends with its control total, so that one that was cut off cannot be taken for whole. In CSV the first
cell of a line says what it is: H header, D declaration, A acknowledgement of one, T control total. A cell that a
spreadsheet would take for a formula begins with an apostrophe, which is not part of the text; so does one that begins
with an apostrophe.
"""

from __future__ import annotations

import csv
import io
import re
from decimal import Decimal

from gsb.sdk import Broken
from gsb_adapters.customs.batches import COLUMNS, Acknowledgement, Batch, Total, Verdict
from gsb_adapters.xml import Unreadable, build, parse, written

VERSION = "1"
NAMESPACE = "urn:gsb:customs:1"
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""How cells begin that a spreadsheet computes (CWE-1236); the last four are the first in full width."""
STATUSES = ("accepted", "rejected")
VERDICT = ("reference", "status", "code", "registration")
STATED = ("count", "value", "duty", "accepted", "acceptedValue", "acceptedDuty")
NUMBER = re.compile(r"[0-9]{1,18}(\.[0-9]{2})?")
WORD = re.compile(r"[A-Z0-9-]{0,35}")


def to_csv(batch: Batch) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow(["H", VERSION, batch.name, batch.agency, batch.office, batch.currency])
    writer.writerows(["D", *map(guarded, row)] for row in batch.rows)
    writer.writerow(["T", *_totals(batch.control)])
    return text.getvalue().encode()


def to_xml(batch: Batch) -> bytes:
    rows = [
        build("Declaration", [build(name, cell) for name, cell in zip(COLUMNS, row, strict=True)]) for row in batch.rows
    ]
    count, value, duty = _totals(batch.control)
    header = {"xmlns": NAMESPACE, "version": VERSION, "batch": batch.name, "sender": batch.agency}
    total = build("ControlTotal", count=count, value=value, duty=duty)
    return written(build("DeclarationBatch", [*rows, total], **header, office=batch.office, currency=batch.currency))


def from_csv(content: bytes) -> Acknowledgement:
    """Raises Unreadable for a file that is not whole, and Broken for one that is no acknowledgement."""
    try:
        # Strictly: a quote that is never closed, or half a character, is a file that was cut off.
        rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise Unreadable(f"{type(error).__name__}: {error}") from error
    if len(rows) < 2 or rows[-1][:1] != ["T"] or not content.endswith(b"\n"):
        raise Unreadable("its end is not there")
    header, *lines, total = rows
    if header[:2] != ["H", VERSION] or len(header) != 3 or any(line[:1] != ["A"] for line in lines):
        raise Broken("it is a CSV file, but no acknowledgement")
    return _acknowledgement(header[2], [[bare(cell) for cell in line[1:]] for line in lines], total[1:])


def from_xml(content: bytes) -> Acknowledgement:
    """Raises Unreadable for a file that is not whole, and Broken for one that is no acknowledgement."""
    root = parse(content)
    *lines, total = [*root] or [root]
    names = ["Acknowledgement", *(["Declaration"] * len(lines)), "ControlTotal"]
    if [each.tag for each in (root, *lines, total)] != [f"{{{NAMESPACE}}}{name}" for name in names]:
        raise Broken("it is an XML file, but no acknowledgement")
    if root.get("version") != VERSION:
        raise Broken("it is an acknowledgement of another version")
    cells = [[line.get(name, "") for name in VERDICT] for line in lines]
    return _acknowledgement(root.get("batch", ""), cells, [total.get(name, "") for name in STATED])


def guarded(cell: str) -> str:
    return f"'{cell}" if cell.startswith((*FORMULA, "'")) else cell


def bare(cell: str) -> str:
    return cell.removeprefix("'")


def _totals(total: Total) -> list[str]:
    return [str(total.count), f"{total.value:.2f}", f"{total.duty:.2f}"]


def _acknowledgement(batch: str, lines: list[list[str]], stated: list[str]) -> Acknowledgement:
    if len(stated) != len(STATED) or not all(NUMBER.fullmatch(cell) for cell in stated):
        raise Broken("the control totals of the acknowledgement are no numbers")
    for line in lines:
        if len(line) != len(VERDICT) or line[1] not in STATUSES or not all(map(WORD.fullmatch, line[2:])):
            raise Broken("a line of the acknowledgement makes no sense")
    received, accepted = (
        Total(int(count), Decimal(value), Decimal(duty)) for count, value, duty in (stated[:3], stated[3:])
    )
    return Acknowledgement(batch, tuple(Verdict(*line) for line in lines), received, accepted)


FORMATS = {"csv": (to_csv, from_csv), "xml": (to_xml, from_xml)}
"""By the ending of a file's name."""
