"""A SOAP 1.1 service as its WSDL describes it: zeep writes and reads its messages, its XML Schema judges them.

Documents come from one folder on this machine, whatever they name, and a document type declaration is refused before
anything in it is read, so there are no entities. Nothing is sent here, and nothing kept: a crash means nothing.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Mapping
from datetime import date, time
from decimal import Decimal
from math import isfinite
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import quote, unquote

import zeep.wsdl
from lxml import etree
from zeep.wsdl.bindings.soap import Soap11Binding
from zeep.wsdl.messages import DocumentMessage
from zeep.xsd import CompoundValue

from gsb_adapters.xml import Unreadable, refuse_document_type

SOAP = "{http://schemas.xmlsoap.org/soap/envelope/}"
WSDL = "{http://schemas.xmlsoap.org/wsdl/}"
XSD = "{http://www.w3.org/2001/XMLSchema}"
STRICT = zeep.Settings(strict=True, forbid_dtd=True, forbid_entities=True, forbid_external=True)
FOREIGN = (zeep.exceptions.Error, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What zeep raises for values that it cannot write or read."""
MOST = 20_000
"""Elements of an answer. zeep makes so many objects of each that with more of them Python's own tidying up stops every
thread for longer than an event loop may stand still."""
Message = tuple[bytes, Mapping[str, str]]


class Unfit(Exception):
    """A document or message is not what it must be. What it says may quote it, so it is for the evidence only."""


class Fault(Exception):
    """The system's own error (SOAP 1.1, section 4.4), with the ``names`` it may be known by, the most telling first."""

    def __init__(self, fault: Any) -> None:
        details = [etree.QName(each).localname for each in fault.iterfind("detail/*")]
        text, code = (fault.findtext(name, "").strip() for name in ("faultstring", "faultcode"))
        self.names = [*details[:1], text, code.rpartition(":")[2]]
        super().__init__(f"the fault {' of '.join([*details[:1], code])}: {text[:500]}")


class Folder(etree.Resolver):  # type: ignore[misc]  # the library has no types
    """Gives documents of one folder, and no others, to zeep (as its transport) and to lxml (as its resolver)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._inline: dict[str, bytes] = {}
        self._spaces: dict[str | None, list[str]] = {}

    def load(self, url: str) -> bytes:
        """Raises Unfit for whatever is not a file in this folder without a document type declaration."""
        path = Path(url).resolve()
        if "://" in url or not path.is_relative_to(self._folder) or not path.is_file():
            raise Unfit(f"{url} is no file below {self._folder}, and nothing else is read")
        content = path.read_bytes()
        for number, schema in enumerate(parse(content).iterfind(f"{WSDL}types/{XSD}schema")):
            if (address := f"{path}#{number}") not in self._inline:
                self._inline[address] = etree.tostring(schema)
                self._spaces.setdefault(schema.get("targetNamespace"), []).append(address)
        return content

    def resolve(self, url: str, public: str | None, context: Any) -> Any:
        """Called by lxml wherever a schema names another."""
        name = unquote(url)
        content = self._inline[name] if name in self._inline else self.load(name)
        return self.resolve_string(content, context, base_url=url.partition("#")[0])

    def schema(self) -> Any:
        """One XML Schema of all that stand within the WSDLs that were loaded, and of what these import."""
        # Only a schema with a namespace may import one that has none (XML Schema 1.0, section 4.2.3).
        every = etree.Element(f"{XSD}schema", targetNamespace="urn:every")
        for number, (space, addresses) in enumerate(self._spaces.items()):
            # A namespace is imported from one place only, but its schemas may be several.
            address, one = f"{self._folder}/#{number}", etree.Element(f"{XSD}schema", _named("targetNamespace", space))
            for each in addresses:
                etree.SubElement(one, f"{XSD}include", schemaLocation=quote(each, safe="/#"))
            self._inline[address] = etree.tostring(one)
            named = _named("namespace", space)
            etree.SubElement(every, f"{XSD}import", named, schemaLocation=quote(address, safe="/#"))
        parser = etree.XMLParser(resolve_entities=False, no_network=True)
        parser.resolvers.add(self)
        return etree.XMLSchema(etree.fromstring(etree.tostring(every), parser))


def _named(attribute: str, namespace: str | None) -> dict[str, str]:
    return {} if namespace is None else {attribute: namespace}


class Port:
    """One port of a WSDL. Its calls may take as long as the messages are large, and may be made in any thread."""

    def __init__(self, path: Path, name: str | None) -> None:
        """Raises Unfit, or whatever zeep and lxml raise for a WSDL or schema that they cannot read."""
        folder = Folder(path.parent)
        document = zeep.wsdl.Document(str(path.resolve()), folder, settings=STRICT)
        every = [port for service in document.services.values() for port in service.ports.values()]
        ports = {port.name: port.binding for port in every if isinstance(port.binding, Soap11Binding)}
        chosen = name or ", ".join(ports)
        if chosen not in ports:
            raise Unfit(f"no one port is chosen; those of the WSDL that speak SOAP 1.1: {', '.join(ports)}")
        self._binding, self._types = ports[chosen], document.types
        self._schema, self._schema_lock = folder.schema(), Lock()

    def operation(self, name: str) -> Any:
        """Raises Unfit if there is none, or not one of the kind document/literal (WS-I Basic Profile 1.1, R2706)."""
        try:
            found: Any = self._binding.get(name)
        except ValueError:
            raise Unfit(f"the port has no operation {name}") from None
        if not isinstance(found.input, DocumentMessage) or found.input.body is None:
            raise Unfit(f"the operation {name} is not of the kind document/literal with one element")
        return found

    def write(self, name: str, arguments: Mapping[str, Any], sign: Callable[[Any], None]) -> Message:
        """A message that fits the schema. ``sign`` may add to its envelope. Raises Unfit."""
        try:
            message = self.operation(name).create(**arguments)
        except FOREIGN as error:
            raise Unfit(f"{type(error).__name__}: {error}") from error
        self._judge(message.content.find(f"{SOAP}Body")[0])
        sign(message.content)
        kinds = {"Content-Type": "text/xml; charset=utf-8", "Accept": "text/xml"}
        return etree.tostring(message.content, xml_declaration=True, encoding="utf-8"), {**message.headers, **kinds}

    def read(self, name: str, content: bytes) -> Any:
        """What the answer's element holds, as JSON has it; None for an operation without one. Raises Fault, Unfit."""
        expected = getattr(self.operation(name).output, "body", None)
        if expected is None and not content:
            return None
        root = parse(content)
        if root.xpath("count(//*)") > MOST:
            raise Unfit(f"the answer has more than {MOST} elements")
        body = root.find(f"{SOAP}Body") if root.tag == f"{SOAP}Envelope" else None
        if body is None:
            raise Unfit(f"a {root.tag} is no SOAP 1.1 envelope")
        if (fault := body.find(f"{SOAP}Fault")) is not None:
            raise Fault(fault)
        if expected is None:
            return None
        if [each.tag for each in body] != [expected.qname.text]:
            raise Unfit(f"the answer does not hold one {expected.qname.text}")
        self._judge(body[0])
        try:
            return _plain(expected.parse(body[0], self._types))
        except FOREIGN as error:
            raise Unfit(f"the answer cannot be read: {type(error).__name__}") from error

    def _judge(self, element: Any) -> None:
        with self._schema_lock:  # or the error of one message would be told of another
            if not self._schema.validate(element):
                raise Unfit(f"the schema does not allow it: {self._schema.error_log.last_error.message}")


def parse(content: bytes) -> Any:
    """The root of a document without a document type, as zeep takes it. Raises Unfit for any other."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, remove_comments=True, remove_pis=True)
    try:
        refuse_document_type(content)
        return etree.fromstring(content, parser)
    except (Unreadable, etree.XMLSyntaxError, LookupError, ValueError) as error:
        raise Unfit(f"it cannot be read: {error}") from error


def _plain(value: Any) -> Any:
    """A value of the schema as JSON has it. Raises ValueError for one that JSON cannot show."""
    match value:
        case None | str() | int():
            return value
        case float() if isfinite(value):
            return value
        case Decimal():
            return format(value, "f")
        case date() | time():
            return value.isoformat()
        case bytes():
            return base64.b64encode(value).decode()
        case list():
            return [_plain(each) for each in value]
        case CompoundValue():
            return {name: _plain(value[name]) for name in value}
    raise ValueError(type(value).__name__)


def _refuse_to_go_on(record: logging.LogRecord) -> bool:
    """zeep logs a value that it cannot read, and goes on as if there were none. Neither may happen here."""
    raise ValueError("a value of this type cannot be read")


logging.getLogger("zeep.xsd.types.simple").addFilter(_refuse_to_go_on)
