"""Declarative mapping from one JSON value to another: JMESPath expressions, compiled once.

It decides nothing and sends nothing. Beside JMESPath's own functions there is one more:

    decimal(value, places)   a number or numeric string as a decimal string with exactly so many places, as amounts
                             are written on the bus: decimal(`1234.5`, `2`) is "1234.50". Null stays null. A value
                             with more places than that is an error, never rounded.
"""

from __future__ import annotations

import decimal
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

import jmespath
from jmespath.functions import Functions, signature
from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from gsb.model import Request
from gsb.sdk.errors import Broken, Refused

_EXACT = decimal.Context(prec=60, traps=[decimal.Inexact, decimal.InvalidOperation])


class Shape:
    """How to build one value from another. In settings it is written in one of two forms.

    A string is a JMESPath expression (https://jmespath.org/specification.html). A table has such shapes as its
    members, and a member whose value would be null is left out.
    """

    def __init__(self, source: object) -> None:
        """Raises ValueError with one clear sentence."""
        self._members: dict[str, Shape] | None = None
        if isinstance(source, Mapping):
            self._members = {str(name): Shape(inner) for name, inner in source.items()}
        elif isinstance(source, str):
            self._expression = jmespath.compile(source)
            for node in _nodes(self._expression.parsed):
                _check_call(node)
        else:
            raise ValueError("a mapping is a JMESPath expression or a table of mappings")

    def of(self, data: Any) -> Any:
        """The value built from ``data``, ready for JSON. Raises ``Broken`` if an expression cannot be applied."""
        if self._members is not None:
            built = ((name, shape.of(data)) for name, shape in self._members.items())
            return {name: value for name, value in built if value is not None}
        try:
            return _plain(self._expression.search(data, options=_OPTIONS))
        except (jmespath.exceptions.JMESPathError, TypeError) as error:
            # What the error says quotes the value at which it failed.
            raise Broken(f"the mapping cannot be applied: {type(error).__name__}") from error

    def asked(self, data: Any) -> Any:
        """The same for a part of what is asked of a system. Nothing was sent yet, so one that cannot be built is
        ``Refused``, with ``invalid``."""
        try:
            return self.of(data)
        except Broken as error:
            raise Refused("invalid", error.detail) from error

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(cls)


class _Functions(Functions):  # type: ignore[misc]  # the library has no types
    @signature({"types": []}, {"types": ["number"]})  # type: ignore[untyped-decorator]
    def _func_decimal(self, value: Any, places: int) -> str | None:
        return None if value is None else decimal_string(value, places)


_OPTIONS = jmespath.Options(custom_functions=_Functions())


def scope(request: Request) -> dict[str, Any]:
    """What expressions see of an exchange, by these names."""
    return {
        "exchange": request.exchange,
        "agency": request.agency,
        "service": request.service,
        "purpose": request.purpose,
        "sub": request.sub,
        "case": request.case,
        "body": request.body,
    }


def decimal_string(value: Any, places: int) -> str:
    """``value`` as a decimal string with exactly ``places`` places. Raises ``Broken`` rather than round."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)):
        raise Broken("an amount is neither a number nor a numeric string")
    try:
        # The shortest text that reads back as the same float is what the system meant, up to 15 digits.
        number = Decimal(repr(value) if isinstance(value, float) else value)
        exact = number.quantize(Decimal(1).scaleb(-places), context=_EXACT)
    except decimal.DecimalException as error:
        raise Broken(f"an amount cannot be written with {places} places") from error
    if exact.is_nan():
        raise Broken("an amount is not a number")
    return format(exact.copy_abs() if exact.is_zero() else exact, "f")


def _plain(value: Any) -> Any:
    """The same value without ``Decimal``: what an expression did not make a string stays a number of JSON."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    yield node
    for child in node["children"]:
        if isinstance(child, dict):  # those of a slice are plain numbers
            yield from _nodes(child)


def _check_call(node: dict[str, Any]) -> None:
    """JMESPath itself notices a wrong function only when it is called."""
    if node["type"] != "function_expression":
        return
    name, given = node["value"], len(node["children"])
    function = _Functions.FUNCTION_TABLE.get(name)
    if function is None:
        raise ValueError(f"there is no function {name}()")
    wanted = function["signature"]
    variadic = bool(wanted) and wanted[-1].get("variadic", False)
    if given != len(wanted) and not (variadic and given > len(wanted)):
        raise ValueError(f"the function {name}() takes {len(wanted)} arguments, not {given}")
