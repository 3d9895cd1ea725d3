"""XML of systems and partners read, and ours written, with Python's own parser.

A document type is refused at its first character, so there are no entities to expand and nothing outside to fetch
(CWE-776, CWE-611). Sizes are bounded by whoever read the document. A crash means nothing: nothing is kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from xml.etree.ElementTree import Element, TreeBuilder, tostring
from xml.parsers.expat import ExpatError, ParserCreate, XMLParserType

__all__ = ["Element", "Unreadable", "build", "parse", "refuse_document_type", "written"]


class Unreadable(Exception):
    """It is no XML, or has a document type."""


def refuse_document_type(content: bytes) -> None:
    """Raises Unreadable for a document with a document type, or one that is no XML before its root."""

    def declared(*told: object) -> None:
        raise Unreadable("it has a document type declaration")

    def rooted(*told: object) -> None:
        raise StopIteration

    # Entities are declared, and files named, only in the declaration: so this ends where it or the root begins.
    prolog = ParserCreate()
    prolog.StartDoctypeDeclHandler, prolog.StartElementHandler = declared, rooted
    with suppress(StopIteration):
        _run(prolog, content)


def parse(content: bytes) -> Element:
    """The root of a document; names are ``{namespace}name``. Raises Unreadable."""
    refuse_document_type(content)
    parser, builder = ParserCreate(namespace_separator="}"), TreeBuilder()
    parser.buffer_text = True
    parser.StartElementHandler = lambda name, attributes: builder.start(_clark(name), attributes)
    parser.EndElementHandler = lambda name: builder.end(_clark(name))
    parser.CharacterDataHandler = builder.data
    _run(parser, content)
    return builder.close()


def _run(parser: XMLParserType, content: bytes) -> None:
    try:
        parser.Parse(content, True)
    except (ExpatError, ValueError, LookupError) as error:  # the last two: an encoding that does not exist
        raise Unreadable(f"{type(error).__name__}: {error}") from error


def _clark(name: str) -> str:
    return "{" + name if "}" in name else name


def build(name: str, content: str | Iterable[Element] = (), **attributes: str) -> Element:
    """An element with this text, or with these elements in it."""
    element = Element(name, attributes)
    if isinstance(content, str):
        element.text = content
    else:
        element.extend(content)
    return element


def written(root: Element) -> bytes:
    """A document in UTF-8, with its declaration."""
    return bytes(tostring(root, encoding="utf-8", xml_declaration=True))
