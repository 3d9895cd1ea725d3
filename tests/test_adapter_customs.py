"""The customs adapter over a real OpenSSH, before a customs house of our own; and before one that makes mistakes."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsb.sdk import Broken, Refused, Reply, Unavailable
from gsb_adapters.customs.batches import batch_of
from gsb_adapters.customs.files import FORMATS, FORMULA, bare, guarded, to_csv, to_xml
from gsb_adapters.xml import Unreadable, parse
from tests.support.declarations import (
    ACKNOWLEDGED,
    LODGE,
    Border,
    answer,
    asked_for,
    batch,
    border,
    declaration,
    lodging,
    money,
    name_of,
    registered,
    schema,
    total,
)

KINDS = pytest.mark.parametrize("kind", ["csv", "xml"])
NASTY = [
    *(
        '=HYPERLINK("http://x";"y")',
        "+1+1",
        "-2+3",
        "@SUM(A1:A9)",
        "'quoted",
        "''",
        "\uff1d1+1",
        "a,b;c\tno".replace("\t", " "),
    ),
    *('say "no", twice', "<b>&amp;]]>", "T", "H,1", "كاكاو خام", "可可豆 🍫", " = spaced", "\u00a0=1"),
]


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Border]:
    async with border(tmp_path) as found:
        yield found


async def told(adapter: Any, lodged: Any) -> Any:
    """The acknowledgement, once there is one."""
    for _ in range(600):
        reply = await adapter.handle(asked_for(lodged))
        if reply.body["state"] != "pending":
            assert schema(ACKNOWLEDGED, "reply").faults(reply.body) == []
            return reply.body
        await asyncio.sleep(0.1)
    raise AssertionError("there is no acknowledgement")


# --- with the customs house


@KINDS
async def test_a_batch_is_lodged_and_acknowledged(place: Border, kind: str) -> None:
    lines = [declaration("D-1"), declaration("D-2", commodity="77010000"), declaration("D-3", duty=money("100.11"))]
    lodged = lodging(*lines)
    async with place.house() as house, place.adapter(kind) as adapter:
        await adapter.check()
        reply = await adapter.handle(lodged)
        assert schema(LODGE, "reply").faults(reply.body) == []
        name = name_of(lodged)
        assert reply.body == {"batch": name, "file": f"{name}.{kind}", "control": total(lines)}
        said = await told(adapter, lodged)
        again = lodging(declaration("D-1"), declaration("D-4"))
        await adapter.handle(again)
        second = await told(adapter, again)
        await place.taken()
    number = registered(house)[name]["D-1"]["registration"]
    assert said["state"] == "partly_accepted"
    assert said["declarations"] == [
        {"reference": "D-1", "status": "accepted", "registration": number},
        {"reference": "D-2", "status": "rejected", "code": "E01"},
        {"reference": "D-3", "status": "rejected", "code": "E02"},
    ]
    assert (said["accepted"], said["rejected"]) == (total(lines[:1]), total(lines[1:]))
    assert [each.get("code") for each in second["declarations"]] == ["E03", None]  # D-1 was registered before
    assert place.there("archive") == sorted([f"{name}.{kind}", f"{name_of(again)}.{kind}"])
    assert place.there("inbox", "outbox") == []


@KINDS
async def test_whatever_stands_in_a_description_arrives_as_it_was(place: Border, kind: str) -> None:
    lines = [declaration(f"D-{number}", description=text) for number, text in enumerate(NASTY)]
    lodged = lodging(*lines)
    async with place.house(), place.adapter(kind) as adapter:
        await adapter.handle(lodged)
        assert (await told(adapter, lodged))["state"] == "accepted"


@KINDS
async def test_a_thousand_declarations(place: Border, kind: str) -> None:
    lines = [declaration(f"D-{number}", value=money(f"{number}.07"), duty=money("0.01")) for number in range(1_000)]
    lodged = lodging(*lines)
    async with place.house(), place.adapter(kind) as adapter:
        await adapter.handle(lodged)
        said = await told(adapter, lodged)
    assert said["accepted"] == total(lines)
    assert said["rejected"]["count"] == 0


@KINDS
async def test_a_repeat_lodges_nothing_more_wherever_the_file_is(place: Border, kind: str) -> None:
    lodged = lodging(declaration("D-1"))
    async with place.adapter(kind) as adapter:
        assert await adapter.find(lodged) is None
        first = await adapter.handle(lodged)
        assert await adapter.handle(lodged) == first
        other = "xml" if kind == "csv" else "csv"
        async with place.adapter(other) as changed:  # a repeat after a change of the settings
            assert await changed.handle(lodged) == first
        (place.account / "bus/lodged" / name_of(lodged)).unlink()  # as a crash before the last step leaves it
        assert await adapter.handle(lodged) == first
        assert place.there("inbox", "archive") == [first.body["file"]]
        async with place.house() as house:
            said = await told(adapter, lodged)
            assert await adapter.handle(lodged) == first
            assert await adapter.find(lodged) == first
            assert await told(adapter, lodged) == said
            assert list(registered(house)) == [name_of(lodged)]


async def test_a_file_that_comes_again_after_all_is_known_to_the_customs_house(place: Border) -> None:
    """What remains: a crash between the renaming and its note, and an archive that was cleared in the meantime."""
    lodged = lodging(declaration("D-1"))
    async with place.house() as house, place.adapter("csv") as adapter:
        await adapter.handle(lodged)
        said = await told(adapter, lodged)
        await place.taken()
        name = name_of(lodged)
        (place.account / "archive" / f"{name}.csv").rename(place.account / "inbox" / f"{name}.csv")
        await house.kill()
        await house.start()
        await place.taken()
        assert place.there("archive") == [f"{name}.csv"]
        assert await told(adapter, lodged) == said
        assert list(registered(house)) == [name]


async def test_a_batch_that_was_begun_is_lodged_in_the_form_in_which_it_was_begun(place: Border) -> None:
    lodged = lodging(declaration("D-1"))
    async with place.adapter("csv") as adapter:
        first = await adapter.handle(lodged)
        for path in (place.account / "bus/lodged" / name_of(lodged), place.account / "inbox" / first.body["file"]):
            path.unlink()  # as a crash before the file was there leaves it
        assert await adapter.find(lodged) is None
        async with place.adapter("xml") as changed:
            assert await changed.handle(lodged) == first
    assert place.there("inbox") == [first.body["file"]]


async def test_the_same_batch_from_many_at_once_is_lodged_once(place: Border) -> None:
    lodged = lodging(*(declaration(f"D-{number}") for number in range(50)))
    async with place.house() as house, place.adapter("xml") as adapter:
        replies = await asyncio.gather(*(adapter.handle(lodged) for _ in range(6)))
        assert replies == replies[:1] * 6
        said = await told(adapter, lodged)
        assert [await told(adapter, lodged) for _ in range(2)] == [said, said]
        both = await asyncio.gather(*(adapter.handle(asked_for(lodged)) for _ in range(6)))
    assert [each.body for each in both] == [said] * 6
    assert list(registered(house)) == [name_of(lodged)]


async def test_another_agency_learns_nothing_of_it(place: Border) -> None:
    lodged = lodging(declaration("D-1"))
    async with place.adapter("csv") as adapter:
        await adapter.handle(lodged)
        for asked in (asked_for(lodged, agency="another"), asked_for(lodging(declaration("D-1")))):
            with pytest.raises(Refused) as raised:
                await adapter.handle(asked)
            assert raised.value.code == "not_found"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (batch([declaration("D-1"), declaration("D-1")]), "reference_repeated"),
        (batch([declaration("D-1", duty={"amount": "1.00", "currency": "EUR"})]), "currency_invalid"),
        (batch([declaration("D-1")], control=total([])), "control_total"),
        (batch([declaration("D-1")], control=total([declaration("D-1", value=money("100.11"))])), "control_total"),
        (batch([declaration("D-1")], control=total([declaration("D-1", duty=money("10.00"))])), "control_total"),
    ],
    ids=["reference", "currency", "count", "value", "duty"],
)
async def test_a_batch_that_contradicts_itself_is_refused(place: Border, body: Any, code: str) -> None:
    lodged = lodging(declaration("D-1"))
    object.__setattr__(lodged, "body", body)
    async with place.adapter("csv") as adapter:
        with pytest.raises(Refused) as raised:
            await adapter.handle(lodged)
    assert raised.value.code == code
    assert place.there("inbox") == []


async def test_a_server_that_is_away_got_nothing_and_is_used_again(place: Border) -> None:
    lodged = lodging(declaration("D-1"))
    async with place.adapter("csv") as adapter:
        await place.sshd.stop()
        with pytest.raises(Unavailable) as raised:
            await adapter.handle(lodged)
        assert raised.value.sent is False
        await place.sshd.start()
        assert isinstance(await adapter.handle(lodged), Reply)


# --- with a customs house that makes mistakes

ACCEPTED = ["2", "200.20", "20.02", "2", "200.20", "20.02"]
PARTLY = ["2", "200.20", "20.02", "1", "100.10", "10.01"]
LINES = [["D-1", "accepted", "", "C-1"], ["D-2", "accepted", "", "C-2"]]
Spoil = Callable[[str], tuple[str, list[list[str]], list[str]]]
MISTAKES: dict[str, Spoil] = {
    "another batch": lambda name: ("0" * 32, LINES, ACCEPTED),
    "one is missing": lambda name: (name, LINES[:1], ACCEPTED),
    "one too many": lambda name: (name, [*LINES, ["D-3", "accepted", "", "C-3"]], ACCEPTED),
    "one twice": lambda name: (name, [*LINES, LINES[0]], ACCEPTED),
    "a foreign one": lambda name: (name, [LINES[0], ["D-9", "accepted", "", "C-2"]], ACCEPTED),
    "rejected without a code": lambda name: (name, [LINES[0], ["D-2", "rejected", "", ""]], PARTLY),
    "accepted with a code": lambda name: (name, [LINES[0], ["D-2", "accepted", "E01", "C-2"]], ACCEPTED),
    "another status": lambda name: (name, [LINES[0], ["D-2", "maybe", "", ""]], PARTLY),
    "a code that is a text": lambda name: (name, [LINES[0], ["D-2", "rejected", "no good", ""]], PARTLY),
    "another count": lambda name: (name, LINES, ["3", *ACCEPTED[1:]]),
    "another value": lambda name: (name, LINES, ["2", "200.21", *ACCEPTED[2:]]),
    "another duty": lambda name: (name, LINES, ["2", "200.20", "20.03", *ACCEPTED[3:]]),
    "accepted less than it says": lambda name: (name, LINES, PARTLY),
    "totals that are no numbers": lambda name: (name, LINES, ["2", "NaN", "sNaN", "2", "Infinity", "1e3"]),
    "totals in other digits": lambda name: (name, LINES, ["٢", *ACCEPTED[1:]]),
}


@KINDS
async def test_an_acknowledgement_that_does_not_fit_never_counts(place: Border, kind: str) -> None:
    lodged = lodging(declaration("D-1"), declaration("D-2"))
    async with place.adapter(kind) as adapter:
        await adapter.handle(lodged)
        name = name_of(lodged)
        for spoil in MISTAKES.values():
            place.answer(kind, name, answer(kind, *spoil(name)))
            with pytest.raises(Broken):
                await adapter.handle(asked_for(lodged))
        assert place.there("bus/acknowledged", "bus/read") == []
        place.answer(kind, name, answer(kind, name, LINES, ACCEPTED))  # the customs house corrects it
        assert (await adapter.handle(asked_for(lodged))).body["state"] == "accepted"


@KINDS
async def test_half_an_acknowledgement_never_counts(place: Border, kind: str) -> None:
    lodged = lodging(declaration("D-1"), declaration("D-2"))
    async with place.adapter(kind) as adapter:
        await adapter.handle(lodged)
        name = name_of(lodged)
        whole = answer(kind, name, [LINES[0], ["D-2", "rejected", "E01", ""]], PARTLY)
        for half in (b"", whole[: len(whole) // 2], whole[:-1]):
            place.answer(kind, name, half)
            assert (await adapter.handle(asked_for(lodged))).body == {"batch": name, "state": "pending"}
        place.answer(kind, name, whole)
        assert (await adapter.handle(asked_for(lodged))).body["state"] == "partly_accepted"


@KINDS
async def test_what_was_acknowledged_stays_so(place: Border, kind: str) -> None:
    lodged = lodging(declaration("D-1"), declaration("D-2"))
    async with place.adapter(kind) as adapter:
        await adapter.handle(lodged)
        name = name_of(lodged)
        place.answer(kind, name, answer(kind, name, LINES, ACCEPTED))
        first = await adapter.handle(asked_for(lodged))
        rejected = [[reference, "rejected", "E01", ""] for reference in ("D-1", "D-2")]
        place.answer(kind, name, answer(kind, name, rejected, [*ACCEPTED[:3], "0", "0.00", "0.00"]))
        assert await adapter.handle(asked_for(lodged)) == first


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("csv", b'"H","1"\r\n"T","1","1.00","1.00","1","1.00","1.00"\r\n'),
        ("csv", b"H,2,NAME\r\nA,D-1,accepted,,C-1\r\nT,1,100.10,10.01,1,100.10,10.01\r\n"),
        ("csv", b"H,1,NAME\r\nX,D-1,accepted,,C-1\r\nT,1,100.10,10.01,1,100.10,10.01\r\n"),
        ("csv", b"H,1,NAME\r\nA,D-1,accepted\r\nT,1,100.10,10.01,1,100.10,10.01\r\n"),
        ("xml", b"<html><body>It works!</body></html>"),
        ("xml", b"<Acknowledgement/>"),
        (
            "xml",
            b'<Acknowledgement xmlns="urn:gsb:customs:1" version="2" batch="NAME"><ControlTotal/></Acknowledgement>',
        ),
        (
            "xml",
            b'<Acknowledgement xmlns="urn:gsb:customs:1" version="1" batch="NAME"><ControlTotal/></Acknowledgement>',
        ),
    ],
)
async def test_what_is_whole_and_no_acknowledgement_is_broken(place: Border, kind: str, content: bytes) -> None:
    lodged = lodging(declaration("D-1"))
    async with place.adapter(kind) as adapter:
        await adapter.handle(lodged)
        place.answer(kind, name_of(lodged), content.replace(b"NAME", name_of(lodged).encode()))
        with pytest.raises(Broken):
            await adapter.handle(asked_for(lodged))


async def test_a_document_type_is_never_read(place: Border, caplog: pytest.LogCaptureFixture) -> None:
    lodged = lodging(declaration("D-1"), declaration("D-2"))
    async with place.adapter("xml") as adapter:
        await adapter.handle(lodged)
        whole = answer("xml", name_of(lodged), LINES, ACCEPTED).decode()
        for encoding in ("utf-8", "utf-16"):
            prefix = (
                f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
            )
            place.answer("xml", name_of(lodged), (prefix + whole).encode(encoding))
            assert (await adapter.handle(asked_for(lodged))).body["state"] == "pending"
    assert "does not count" in caplog.text


async def test_one_that_is_too_large_is_broken(place: Border) -> None:
    lodged = lodging(declaration("D-1"))
    async with place.adapter("csv", most_bytes=1_000) as adapter:
        await adapter.handle(lodged)
        place.answer("csv", name_of(lodged), b"x" * 1_001)
        with pytest.raises(Broken):
            await adapter.handle(asked_for(lodged))


# --- the files


@KINDS
def test_no_beginning_of_an_acknowledgement_is_taken_for_the_whole(kind: str) -> None:
    whole = answer(kind, "0" * 32, [["D-1", "accepted", "", "C-1"], ["D-é", "rejected", "E01", ""]], PARTLY)
    assert FORMATS[kind][1](whole).received.count == 2
    for length in range(len(whole)):
        with pytest.raises(Unreadable):
            FORMATS[kind][1](whole[:length])


def test_a_spreadsheet_computes_no_cell() -> None:
    lodged = lodging(*(declaration(f"D-{number}", description=text) for number, text in enumerate(NASTY)))
    content = to_csv(batch_of(lodged)).decode()
    rows = list(csv.reader(io.StringIO(content, newline=""), strict=True))
    assert not [cell for row in rows for cell in row if cell.startswith(FORMULA)]
    assert [bare(row[6]) for row in rows[1:-1]] == NASTY
    assert rows[-1] == [
        "T",
        str(len(NASTY)),
        f"{len(NASTY) * Decimal('100.10'):.2f}",
        f"{len(NASTY) * Decimal('10.01'):.2f}",
    ]
    assert all(line.startswith('"') and line.endswith('"') for line in content.split("\r\n")[:-1])


@given(st.text())
def test_a_guarded_cell_is_what_it_was(text: str) -> None:
    assert bare(guarded(text)) == text
    assert not guarded(text).startswith(FORMULA)


@given(
    st.text(
        st.characters(exclude_categories=["Cc", "Cs", "Cn"], exclude_characters="\u2028\u2029"),
        min_size=1,
        max_size=280,
    )
)
def test_a_description_that_the_schema_takes_is_one_cell_and_one_element(text: str) -> None:
    lodged = lodging(declaration("D-1", description=text))
    rows = list(csv.reader(io.StringIO(to_csv(batch_of(lodged)).decode(), newline=""), strict=True))
    assert [len(row) for row in rows] == [6, 10, 4]
    assert bare(rows[1][6]) == text
    root = parse(to_xml(batch_of(lodged)))
    assert [each.text for each in root.iter("{urn:gsb:customs:1}description")] == [text]


@pytest.mark.parametrize("text", ["two\nlines", "a\x00b", "a\x1bb", "a\u0085b", "a\u2028b", "a\uffffb", ""])
def test_a_description_of_several_lines_or_control_characters_does_not_fit(text: str) -> None:
    body = batch([declaration("D-1")])
    body["declarations"][0]["description"] = text
    assert {fault.pointer for fault in schema(LODGE, "request").faults(body)} == {"/declarations/0/description"}
