"""The customs house itself: program.py ACCOUNT FOLDER; ACCOUNT has inbox, archive and outbox, and FOLDER is its own.

A file counts once it stands in the inbox under a name without a dot in front. Its control total is held against its
declarations; a declaration is registered unless its commodity code or duty cannot be, or its reference is known. What
was decided of a batch stands in the register before it is acknowledged, and a batch that stands there is never
registered again: after a crash, and for a file that comes twice, the same acknowledgement is written once more. Nothing
of the bus is imported. XML with a document type is not read.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring
from xml.parsers.expat import ExpatError, ParserCreate

PAUSE = 0.1
"""Seconds between two looks into the inbox."""
NAMESPACE = "urn:gsb:customs:1"
RESERVED = "77"
"""The chapter of the Harmonized System that is kept for later use: nothing can be declared under it."""
COMMODITY, DUTY, KNOWN, CONTROL = "E01", "E02", "E03", "B01"
"""Why something is rejected: commodity code, duty above value, reference known, and, for a whole batch, its total."""

Row = Mapping[str, str]


class Unreadable(Exception):
    """A file that is no batch."""


class Batch:
    """What a file says."""

    def __init__(self, name: str, rows: Sequence[Row], stated: Sequence[str]) -> None:
        self.name, self.rows = name, rows
        count, value, duty = stated
        self.stated = (int(count), Decimal(value), Decimal(duty))
        self.amounts = {row["reference"]: (Decimal(row["value"]), Decimal(row["duty"])) for row in rows}

    def total(self, references: Sequence[str]) -> tuple[int, Decimal, Decimal]:
        pairs = [self.amounts[each] for each in references]
        return len(pairs), sum((each for each, _ in pairs), Decimal()), sum((each for _, each in pairs), Decimal())


class CustomsHouse:
    """Its account, its own folder, and its register."""

    def __init__(self, account: Path, own: Path) -> None:
        self.account, self.path = account, own / "register.jsonl"
        lines = self.path.read_text("utf-8").splitlines() if self.path.exists() else []
        self.batches: dict[str, dict[str, Any]] = {}
        self.known: set[str] = set()
        for line in map(json.loads, lines):
            if "again" not in line:
                self._remember(line)

    def work(self) -> None:
        """Take what is there now."""
        for path in sorted((self.account / "inbox").iterdir()):
            if path.is_file() and not path.name.startswith("."):
                self._take(path)

    def _take(self, path: Path) -> None:
        ending = path.suffix.removeprefix(".")
        try:
            batch = READERS[ending](path.read_bytes())
        except (Unreadable, LookupError, ValueError, InvalidOperation, csv.Error, ExpatError) as error:
            print(f"{path.name} is no batch: {type(error).__name__}", flush=True)
            path.rename(self.account / "archive" / f"{path.name}.unreadable")
            return
        if batch.name not in self.batches:
            self._register(path.name, batch)
        elif (self.account / "archive" / path.name).exists():
            self._write({"batch": batch.name, "again": path.name})
        told = self.batches[batch.name]["declarations"]
        accepted = [name for name, verdict in told.items() if "registration" in verdict]
        received = batch.stated if self.batches[batch.name]["control"] else batch.total([*batch.amounts])
        content = WRITERS[ending](batch.name, told, [*_shown(received), *_shown(batch.total(accepted))])
        draft = self.account / "outbox" / f".{batch.name}.{ending}"
        draft.write_bytes(content)
        draft.rename(self.account / "outbox" / f"{batch.name}.ack.{ending}")
        path.rename(self.account / "archive" / path.name)

    def _register(self, file: str, batch: Batch) -> None:
        control = batch.total([*batch.amounts]) == batch.stated and len(batch.rows) == len(batch.amounts)
        told: dict[str, dict[str, str]] = {}
        for row in batch.rows:
            code = self._fault(row) if control else CONTROL
            number = {"registration": f"C-{len(self.known) + len(told) + 1:06}"}
            told[row["reference"]] = {"code": code} if code else number
        line = {"batch": batch.name, "file": file, "control": control, "declarations": told}
        self._write(line)
        self._remember(line)

    def _write(self, line: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as register:
            register.write(json.dumps(line) + "\n")
            register.flush()
            os.fsync(register.fileno())

    def _fault(self, row: Row) -> str:
        if row["commodity"].startswith((RESERVED, "00")):
            return COMMODITY
        if Decimal(row["duty"]) > Decimal(row["value"]):
            return DUTY
        return KNOWN if row["reference"] in self.known else ""

    def _remember(self, line: dict[str, Any]) -> None:
        self.batches[line["batch"]] = line
        self.known |= {name for name, verdict in line["declarations"].items() if "registration" in verdict}


COLUMNS = ("reference", "declarant", "procedure", "origin", "commodity", "description", "net_mass", "value", "duty")


def read_csv(content: bytes) -> Batch:
    header, *lines, total = csv.reader(io.StringIO(content.decode("utf-8"), newline=""), strict=True)
    if [header[0], total[0]] != ["H", "T"] or any(line[0] != "D" for line in lines):
        raise Unreadable
    # The apostrophe keeps spreadsheets from computing a cell; it is not part of the text.
    rows = [dict(zip(COLUMNS, (cell.removeprefix("'") for cell in line[1:]), strict=True)) for line in lines]
    return Batch(header[2], rows, total[1:])


def read_xml(content: bytes) -> Batch:
    header: dict[str, str] = {}
    total: dict[str, str] = {}
    rows: list[dict[str, str]] = []
    text: list[str] = []

    def begins(name: str, attributes: dict[str, str]) -> None:
        text.clear()
        if name == "Declaration":
            rows.append({})
        elif name in {"DeclarationBatch", "ControlTotal"}:
            (header if name == "DeclarationBatch" else total).update(attributes)

    def ends(name: str) -> None:
        if name in COLUMNS:
            rows[-1][name] = "".join(text)

    def refuse(*document_type: object) -> None:
        raise Unreadable

    parser = ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = begins, ends, text.append
    parser.Parse(content, True)
    if header.get("xmlns") != NAMESPACE:
        raise Unreadable
    return Batch(header["batch"], rows, [total[name] for name in ("count", "value", "duty")])


def write_csv(name: str, told: Mapping[str, Row], totals: Sequence[str]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["H", "1", name])
    for reference, verdict in told.items():
        writer.writerow(["A", reference, *_verdict(verdict)])
    writer.writerow(["T", *totals])
    return text.getvalue().encode()


def write_xml(name: str, told: Mapping[str, Row], totals: Sequence[str]) -> bytes:
    root = Element("Acknowledgement", xmlns=NAMESPACE, version="1", batch=name)
    for reference, verdict in told.items():
        status, code, registration = _verdict(verdict)
        SubElement(root, "Declaration", reference=reference, status=status, code=code, registration=registration)
    names = ("count", "value", "duty", "accepted", "acceptedValue", "acceptedDuty")
    SubElement(root, "ControlTotal", dict(zip(names, totals, strict=True)))
    return bytes(tostring(root, encoding="utf-8", xml_declaration=True))


def _verdict(verdict: Row) -> list[str]:
    code = verdict.get("code", "")
    return ["rejected" if code else "accepted", code, verdict.get("registration", "")]


def _shown(total: tuple[int, Decimal, Decimal]) -> list[str]:
    return [str(total[0]), f"{total[1]:.2f}", f"{total[2]:.2f}"]


READERS = {"csv": read_csv, "xml": read_xml}
WRITERS = {"csv": write_csv, "xml": write_xml}


def main(account: Path, own: Path) -> None:
    """Until it is ended."""
    house = CustomsHouse(account, own)
    (own / "ready").touch()
    while True:
        if (account / "inbox").is_dir():
            house.work()
        time.sleep(PAUSE)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
