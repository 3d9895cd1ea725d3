"""XML of partners read, and ours written, with Python's own parser; the only place of the adapters that does.

A document type is refused at its first character, so there are no entities to expand and nothing outside to fetch
(CWE-776, CWE-611). Sizes are bounded by whoever read the file. A crash means nothing: nothing is kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree.ElementTree import Element, TreeBuilder, tostring
from xml.parsers.expat import ExpatError, ParserCreate

__all__ = ["Element", "Unreadable", "build", "parse", "written"]


class Unreadable(Exception):
    """It is no XML, or has a document type."""


def parse(content: bytes) -> Element:
    """The root of a document; names are ``{namespace}name``. Raises Unreadable."""
    parser, builder = ParserCreate(namespace_separator="}"), TreeBuilder()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = _no_document_type
    parser.StartElementHandler = lambda name, attributes: builder.start(_clark(name), attributes)
    parser.EndElementHandler = lambda name: builder.end(_clark(name))
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(content, True)
    except (ExpatError, ValueError, LookupError) as error:  # the last two: an encoding that does not exist
        raise Unreadable(f"{type(error).__name__}: {error}") from error
    return builder.close()


def _no_document_type(name: str, *more: object) -> None:
    raise Unreadable("it has a document type")


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
