"""What the adapter ``soap`` makes of documents that are wrong, some on purpose: WSDL, schemas and answers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from lxml import etree
from pydantic import ValidationError
from zeep.exceptions import ExternalReferenceForbidden

from gsb.sdk import Broken, Refused, Unavailable
from gsb_adapters.soap import Soap
from gsb_adapters.soap.settings import Operation
from gsb_adapters.soap.wsdl import Unfit, parse
from tests.support.adapters import opened, request
from tests.support.sockets import answering, http

SERVICE = "office/ask/v1"
XS = 'xmlns:xs="http://www.w3.org/2001/XMLSchema"'
TYPES = """
<xs:element name="ask"><xs:complexType><xs:sequence>
  <xs:element name="plate" type="xs:string"/><xs:element name="fee" type="xs:decimal" minOccurs="0"/>
  <xs:element name="day" type="xs:date" minOccurs="0"/></xs:sequence></xs:complexType></xs:element>
<xs:element name="told"><xs:complexType><xs:sequence>
  <xs:element name="plate" type="xs:string" minOccurs="0"/><xs:element name="fee" type="xs:decimal" minOccurs="0"/>
  <xs:element name="day" type="xs:date" minOccurs="0"/><xs:element name="at" type="xs:dateTime" minOccurs="0"/>
  <xs:element name="span" type="xs:duration" minOccurs="0"/>
  <xs:element name="photo" type="xs:base64Binary" minOccurs="0"/>
  <xs:element name="free" type="xs:boolean" minOccurs="0"/><xs:element name="mass" type="xs:double" minOccurs="0"/>
</xs:sequence></xs:complexType></xs:element>"""
SCHEMA = f'<xs:schema {XS} targetNamespace="urn:office" elementFormDefault="qualified">{{0}}</xs:schema>'
ENVELOPE = '<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body>{0}</e:Body></e:Envelope>'
PORT = '<w:port name="{0}" binding="o:binding"><s:address location="http://elsewhere.example/"/></w:port>'
WSDL = """{before}<w:definitions xmlns:w="http://schemas.xmlsoap.org/wsdl/" xmlns:s="http://schemas.xmlsoap.org/wsdl/soap/"
  xmlns:o="urn:office" targetNamespace="urn:office">{imports}<w:types>{schema}</w:types>
<w:message name="in"><w:part name="p" element="o:ask"/></w:message>
<w:message name="out"><w:part name="p" element="o:told"/></w:message>
<w:portType name="type"><w:operation name="ask"><w:input message="o:in"/>{output}</w:operation></w:portType>
<w:binding name="binding" type="o:type"><s:binding style="{style}" transport="http://schemas.xmlsoap.org/soap/http"/>
<w:operation name="ask"><s:operation soapAction="urn:ask"/><w:input><s:body use="literal"/></w:input>
<w:output><s:body use="literal"/></w:output></w:operation></w:binding>
<w:service name="service">{ports}</w:service></w:definitions>"""
GOOD = {
    "before": "",
    "imports": "",
    "schema": SCHEMA.format(TYPES),
    "output": '<w:output message="o:out"/>',
    "style": "document",
    "ports": PORT.format("one"),
}
ASKS = {"operation": "ask", "arguments": {"plate": "body.plate", "fee": "body.fee", "day": "body.day"}}
XXE = '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
LAUGHS = (
    '<!DOCTYPE x [<!ENTITY a0 "ha">'
    + "".join(f'<!ENTITY a{number} "{f"&a{number - 1};" * 10}">' for number in range(1, 10))
    + "]>"
)


def folder(where: Path, **other: str) -> Path:
    """A deployment's folder with the WSDL, of which some parts are other."""
    (where / "wsdl").mkdir(parents=True, exist_ok=True)
    (where / "wsdl/office.wsdl").write_text(WSDL.format(**(GOOD | other)), "utf-8")
    return where


def settings(url: str, **other: Any) -> dict[str, Any]:
    return {"url": f"{url}/office", "wsdl": "wsdl/office.wsdl", **other}


def told(inner: str) -> bytes:
    return ENVELOPE.format(f'<told xmlns="urn:office">{inner}</told>').encode()


def fault(detail: str, code: str = "e:Server", text: str = "no") -> bytes:
    inside = f"<faultcode>{code}</faultcode><faultstring>{text}</faultstring><detail>{detail}</detail>"
    return ENVELOPE.format(f"<e:Fault>{inside}</e:Fault>").encode()


async def answered(where: Path, answer: bytes, *, finding: bool = False, **service: Any) -> Any:
    """What the adapter makes of this answer (HTTP and all) of the system."""
    async with (
        answering(answer) as server,
        opened(Soap, settings(server.url), {SERVICE: ASKS | service}, folder=folder(where)) as adapter,
    ):
        asked = request(SERVICE, {"plate": "AB"})
        reply = await (adapter.find(asked) if finding else adapter.handle(asked))
    return None if reply is None else reply.body


# --- the WSDL, and what it names


@pytest.mark.parametrize(
    "other",
    [
        {"before": XXE},
        {"before": LAUGHS},
        {"before": '<!DOCTYPE x SYSTEM "{url}/x.dtd">'},
        {"before": '<!DOCTYPE x [<!ENTITY % p SYSTEM "{url}/x.dtd">%p;]>'},
        {"imports": '<w:import namespace="urn:more" location="{url}/more.wsdl"/>'},
        {"imports": '<w:import namespace="urn:more" location="../../outside.wsdl"/>'},
        {"imports": '<w:import namespace="urn:more" location="file:///etc/passwd"/>'},
        {"imports": '<w:import namespace="urn:more" location="declared.wsdl"/>'},
        {"schema": SCHEMA.format('<xs:import namespace="urn:more" schemaLocation="{url}/more.xsd"/>' + TYPES)},
        {"schema": SCHEMA.format('<xs:include schemaLocation="{url}/more.xsd"/>' + TYPES)},
        {"schema": SCHEMA.format('<xs:include schemaLocation="../../outside.xsd"/>' + TYPES)},
        {"schema": SCHEMA.format('<xs:include schemaLocation="link.xsd"/>' + TYPES)},
        {"schema": SCHEMA.format('<xs:include schemaLocation="file:///etc/passwd"/>' + TYPES)},
        {"schema": SCHEMA.format('<xs:include schemaLocation="declared.xsd"/>' + TYPES)},
        {"schema": SCHEMA.format('<xs:include schemaLocation="missing.xsd"/>' + TYPES)},
    ],
)
async def test_nothing_is_read_but_files_of_the_folder_without_a_declaration(
    tmp_path: Path, other: dict[str, str]
) -> None:
    async with answering(http(SCHEMA.format("").encode())) as elsewhere:
        named = {name: part.replace("{url}", elsewhere.url) for name, part in other.items()}
        where = folder(tmp_path / "deployment", **named)
        for name in ("outside.xsd", "outside.wsdl"):
            (tmp_path / name).write_text(SCHEMA.format(""))
        (where / "wsdl/link.xsd").symlink_to(tmp_path / "outside.xsd")
        (where / "wsdl/declared.xsd").write_text(XXE + SCHEMA.format(""))
        (where / "wsdl/declared.wsdl").write_text(LAUGHS + WSDL.format(**GOOD))
        with pytest.raises((Unfit, ExternalReferenceForbidden), match=r"nothing else is read|declaration|http://127"):
            async with opened(Soap, settings(elsewhere.url), {SERVICE: ASKS}, folder=where):
                pass
        assert elsewhere.connections == 0


async def test_a_wsdl_may_be_of_several_documents_in_its_folder(tmp_path: Path) -> None:
    """Two schemas of one namespace and one of none, a file that is included, and one below that is imported."""
    more = f"""<xs:schema {XS} targetNamespace="urn:more"><xs:simpleType name="plate">
      <xs:restriction base="xs:string"><xs:pattern value="[A-Z]+"/></xs:restriction></xs:simpleType></xs:schema>"""
    ask = '<xs:element name="ask"><xs:complexType><xs:sequence><xs:element name="plate" type="m:plate"/>'
    ask += "</xs:sequence></xs:complexType></xs:element>"
    first = f"""<xs:schema {XS} xmlns:m="urn:more" targetNamespace="urn:office" elementFormDefault="qualified">
      <xs:import namespace="urn:more" schemaLocation="below/more.xsd"/>{ask}</xs:schema>"""
    second = f'<xs:schema {XS}><xs:element name="other" type="xs:int"/></xs:schema>'
    third = SCHEMA.format('<xs:include schemaLocation="told.xsd"/>')
    where = folder(tmp_path / "a deployment", schema=first + second + third)
    (where / "wsdl/below").mkdir()
    (where / "wsdl/below/more.xsd").write_text(more)
    (where / "wsdl/told.xsd").write_text(SCHEMA.format(TYPES.partition("</xs:element>\n")[2]))
    service = {"operation": "ask", "arguments": {"plate": "body.plate"}}
    async with (
        answering(http(told("<plate>X</plate>"))) as server,
        opened(Soap, settings(server.url), {SERVICE: service}, folder=where) as adapter,
    ):
        assert (await adapter.handle(request(SERVICE, {"plate": "AB"}))).body["plate"] == "X"
        with pytest.raises(Refused):
            await adapter.handle(request(SERVICE, {"plate": "ab"}))
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("other", "table", "message"),
    [
        ({"style": "rpc"}, {}, "document/literal"),
        ({"ports": ""}, {}, "no one port"),
        ({"ports": PORT.format("one") + PORT.format("two")}, {}, "no one port is chosen; .*: one, two"),
        ({}, {"port": "three"}, "no one port is chosen; .*: one"),
        ({}, {"check": {"operation": "dance"}}, "no operation dance"),
    ],
)
async def test_a_wsdl_that_cannot_be_used_is_told_at_the_start(
    tmp_path: Path, other: dict[str, str], table: dict[str, Any], message: str
) -> None:
    where = folder(tmp_path, **other)
    with pytest.raises(Unfit, match=message):
        async with opened(Soap, settings("http://a", **table), {SERVICE: ASKS}, folder=where):
            pass


async def test_one_port_of_several_is_called_where_the_settings_say(tmp_path: Path) -> None:
    where = folder(tmp_path, ports=PORT.format("one") + PORT.format("two"))
    async with (
        answering(http(told(""))) as server,
        opened(Soap, settings(server.url, port="two"), {SERVICE: ASKS}, folder=where) as adapter,
    ):
        await adapter.check()
        await adapter.handle(request(SERVICE, {"plate": "AB"}))
    check, call = server.requests
    assert check.startswith(b"GET /office HTTP")
    assert call.startswith(b"POST /office HTTP")
    assert b'SOAPAction: "urn:ask"' in call


# --- what is sent


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"plate": "AB", "fee": "much"},
        {"plate": "AB", "fee": {"amount": "1"}},
        {"plate": "AB", "fee": ["1", "2"]},
        {"plate": "AB", "day": "2026-02-30"},
        {"plate": "AB\x00"},
        {"plate": ["AB", "CD"]},
    ],
)
async def test_what_does_not_fit_the_schema_is_refused_before_anything_is_sent(
    tmp_path: Path, body: dict[str, Any]
) -> None:
    async with (
        answering(http(told(""))) as server,
        opened(Soap, settings(server.url), {SERVICE: ASKS}, folder=folder(tmp_path)) as adapter,
    ):
        with pytest.raises(Refused) as raised:
            await adapter.handle(request(SERVICE, body))
    assert raised.value.code == "invalid"
    assert server.requests == []


async def test_values_are_sent_as_they_are_and_never_as_elements(tmp_path: Path) -> None:
    async with (
        answering(http(told(""))) as server,
        opened(Soap, settings(server.url), {SERVICE: ASKS}, folder=folder(tmp_path)) as adapter,
    ):
        odd = "<fee>1</fee>&amp;]]>"
        await adapter.handle(request(SERVICE, {"plate": odd, "fee": "0.10", "day": "2026-02-28"}))
    root = etree.fromstring(server.requests[0].partition(b"\r\n\r\n")[2])
    assert [each.text for each in root[0][0]] == [odd, "0.10", "2026-02-28"]


# --- what is answered


async def test_values_are_read_as_the_schema_types_them(tmp_path: Path) -> None:
    inner = """<plate>AB<!-- a comment -->CD</plate><fee>0012.3400</fee><day>2026-02-28</day>
      <at>2026-02-28T10:00:00Z</at><photo>AAEC</photo><free>1</free><mass>0.5</mass>"""
    assert await answered(tmp_path, http(told(inner))) == {
        "plate": "ABCD",
        "fee": "12.3400",
        "day": "2026-02-28",
        "at": "2026-02-28T10:00:00+00:00",
        "span": None,
        "photo": "AAEC",
        "free": True,
        "mass": 0.5,
    }


@pytest.mark.parametrize(
    "body",
    [
        XXE.encode() + told("<plate>&e;</plate>"),
        LAUGHS.encode() + told("<plate>&a9;</plate>"),
        LAUGHS.encode("utf-16") + told("<plate>&a9;</plate>").decode().encode("utf-16-le"),
        b'<!DOCTYPE x SYSTEM "{url}/x.dtd">' + told(""),
        b'<?xml version="1.0"?><!-- --><!DOCTYPE x [<!ENTITY % p SYSTEM "{url}/x.dtd">%p;]>' + told(""),
    ],
    ids=["external", "laughs", "laughs-utf-16", "dtd", "parameter"],
)
async def test_an_answer_with_a_declaration_is_broken_and_nothing_is_fetched(tmp_path: Path, body: bytes) -> None:
    async with answering(http(b"")) as elsewhere:
        with pytest.raises(Broken, match="document type declaration"):
            await answered(tmp_path, http(body.replace(b"{url}", elsewhere.url.encode())))
        assert elsewhere.connections == 0


@pytest.mark.parametrize(
    "answer",
    [
        http(b""),
        http(b"<html><body>"),
        http(b"\xff\xfe\x00"),
        http(b'<?xml version="1.0" encoding="utf-7"?><a/>'),
        http(told("") + b"<more/>"),
        http(told("").replace(b"</e:Body>", b"<more/></e:Body>")),
        http(told("<fee>much</fee>")),
        http(told("<plate>A</plate><plate>B</plate>")),
        http(told("<plate>" + "<b>" * 300 + "</b>" * 300 + "</plate>")),
        http(told(""), "500 No"),
        http(told(""), "404 No"),
        http(told(""), "401 Unauthorized"),
        http(b"", "500 No"),
    ],
)
async def test_an_answer_that_makes_no_sense_is_broken(tmp_path: Path, answer: bytes) -> None:
    with pytest.raises(Broken):
        await answered(tmp_path, answer)


async def test_an_answer_of_very_many_elements_is_broken(tmp_path: Path) -> None:
    with pytest.raises(Broken, match="more than 20000 elements"):
        await answered(tmp_path, http(told("<plate/>" * 20_000)))


@pytest.mark.parametrize("inner", ["<day>12026-01-01</day>", "<span>P1D</span>", "<mass>INF</mass>"])
async def test_a_value_that_cannot_be_read_is_broken_and_neither_lost_nor_logged(
    tmp_path: Path, inner: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(Broken, match="cannot be read"):
        await answered(tmp_path, http(told(inner)))
    assert caplog.records == []


async def test_an_operation_without_an_answer_s_element_has_none(tmp_path: Path) -> None:
    where = folder(tmp_path, output="")
    for status, body in (("202 Accepted", b""), ("200 OK", ENVELOPE.format("").encode())):
        async with (
            answering(http(body, status)) as server,
            opened(Soap, settings(server.url), {SERVICE: ASKS | {"reply": "{told: answer}"}}, folder=where) as adapter,
        ):
            assert (await adapter.handle(request(SERVICE, {"plate": "AB"}))).body == {"told": None}


# --- faults and statuses

MEANINGS: dict[str, Any] = {"refused": {"Unknown": "not_found"}, "untouched": ["Busy"], "unavailable": ["Server"]}


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (fault('<Unknown xmlns="urn:office"/><Busy/>'), "not_found"),
        (fault("<Busy/>"), False),
        (fault("<Strange/>", text=" Unknown "), "not_found"),
        (fault("<Strange/>"), True),
        (fault("", "Server"), True),
        (fault("<Strange/>", "e:Client"), None),
    ],
)
async def test_a_fault_means_what_the_settings_say(tmp_path: Path, answer: bytes, outcome: str | bool | None) -> None:
    with pytest.raises((Refused, Unavailable, Broken)) as raised:
        await answered(tmp_path, http(answer, "500 Internal Server Error"), **MEANINGS)
    error = raised.value
    assert isinstance(error, {str: Refused, bool: Unavailable, type(None): Broken}[type(outcome)])
    assert getattr(error, "code", getattr(error, "sent", None)) == outcome


async def test_a_system_without_time_is_unavailable(tmp_path: Path) -> None:
    for status, sent in (("429 Slow", False), ("502 Bad", True), ("503 Busy", True)):
        with pytest.raises(Unavailable) as raised:
            await answered(tmp_path, http(b"", status, "Retry-After: 9"))
        assert (raised.value.sent, raised.value.after) == (sent, 9.0)


async def test_find_tells_nothing_where_the_system_knows_nothing(tmp_path: Path) -> None:
    found = {"find": {**ASKS, "reply": "answer.plate && {plate: answer.plate}"}, **MEANINGS}
    assert await answered(tmp_path, http(told("<plate>AB</plate>")), finding=True, **found) == {"plate": "AB"}
    assert await answered(tmp_path, http(told("")), finding=True, **found) is None
    assert await answered(tmp_path, http(fault("<Unknown/>"), "500 No"), finding=True, **found) is None
    assert await answered(tmp_path, http(told("<plate>AB</plate>")), finding=True) is None
    with pytest.raises(Unavailable):
        await answered(tmp_path, http(fault("<Busy/>"), "500 No"), finding=True, **found)
    with pytest.raises(Broken):
        await answered(tmp_path, http(fault("<Strange/>", "x"), "500 No"), finding=True, **found)


async def test_an_answer_for_which_there_is_no_thread_was_sent_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That nothing was begun would be said of the reading, and believed of the exchange."""
    async with (
        answering(http(told(""))) as server,
        opened(Soap, settings(server.url), {SERVICE: ASKS}, folder=folder(tmp_path)) as adapter,
    ):
        threads, asked = adapter.context.threads, request(SERVICE, {"plate": "AB"})
        exchange = adapter.context.http.exchange

        async def full(*given: Any) -> Any:
            answer = await exchange(*given)
            threads.busy += 100
            return answer

        monkeypatch.setattr(adapter.context.http, "exchange", full)
        with pytest.raises(Unavailable) as raised:
            await adapter.handle(asked)
        assert raised.value.sent is True
        with pytest.raises(Unavailable) as raised:
            await adapter.handle(asked)
        assert raised.value.sent is False
    assert len(server.requests) == 1


# --- settings


def test_a_fault_has_one_meaning() -> None:
    with pytest.raises(ValidationError, match="the fault Busy has two meanings"):
        Operation.model_validate({"operation": "ask", "refused": {"Busy": "conflict"}, "untouched": ["Busy"]})


def test_the_wsdl_is_a_file(tmp_path: Path) -> None:
    for wsdl in ("wsdl/none.wsdl", "http://127.0.0.1:1/office?wsdl"):
        with pytest.raises(ValidationError, match="there is no file"):
            Soap.Settings.model_validate({"url": "http://a", "wsdl": wsdl}, context={"folder": folder(tmp_path)})


def test_documents_without_a_declaration_are_read_in_the_encodings_of_xml() -> None:
    for encoding in ("utf-8", "utf-16", "iso-8859-1"):
        text = f'<?xml version="1.0" encoding="{encoding}"?><!-- <!DOCTYPE x> --><a>é</a>'
        assert parse(text.encode(encoding)).text == "é"
