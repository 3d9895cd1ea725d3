"""The pages are whole HTML that loads nothing and leads everywhere it says, and show each reader only its own."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from urllib.parse import urljoin

import orjson
import pytest

from gsb.errors import TABLE
from gsb.web.reference.docs import STYLE
from tests.support.bus import puppet_deployment
from tests.support.deployment import PERSON, Deployment, standard
from tests.support.node import InProcess, node_in_process
from tests.support.reading import read

VOID = {"meta", "link", "img", "br", "hr", "input"}
LOADING = {"script", "link", "img", "iframe", "object", "embed", "audio", "video", "source", "base", "form"}
SHOWN = '<b>&amp; "Marks"</b>'
"""A title that would be markup if it were not escaped."""


class Page(HTMLParser):
    """A page as a list of elements; every element that is opened must be closed in turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        """Pieces of text, each with the name of the element that it stands in."""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names)
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self._open[-1], data))

    def all(self, *names: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name in names]

    @property
    def text(self) -> str:
        return "".join(data for _, data in self.texts)

    @property
    def ids(self) -> list[str]:
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]


def deployment(root: Path) -> Deployment:
    made = standard(root)
    made.files["services/registry/mark/v1.toml"] |= {"public": True, "title": SHOWN}
    return made


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[InProcess]:
    async with node_in_process(tmp_path, deployment(tmp_path)) as node:
        yield node


async def page(node: InProcess, path: str = "/docs", agency: str | None = None) -> Page:
    answer, body = await read(node, path, agency)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert ("GSB-Signature" in answer.headers) is (agency is not None)
    return Page(body.decode())


PAGES = pytest.mark.parametrize(
    ("path", "agency"), [("/docs", None), ("/docs", "payroll"), ("/docs", "audit-office"), ("/problems/replayed", None)]
)


@PAGES
async def test_a_page_loads_nothing_and_runs_nothing(node: InProcess, path: str, agency: str | None) -> None:
    shown = await page(node, path, agency)
    assert [name for name, _ in shown.elements if name in LOADING] == []
    for _, attributes in shown.elements:
        assert not any(name.startswith("on") or name in ("style", "src", "srcset") for name in attributes)
    for attributes in shown.all("a"):
        assert not re.match(r"[a-z]+:|//", attributes["href"])
    (style,) = [text for element, text in shown.texts if element == "style"]
    assert "url(" not in style
    assert "@import" not in style


@PAGES
async def test_a_page_can_be_read_by_its_headings_and_landmarks(node: InProcess, path: str, agency: str | None) -> None:
    shown = await page(node, path, agency)
    assert shown.all("html") == [{"lang": "en"}]
    assert len(shown.all("title")) == len(shown.all("main")) == len(shown.all("h1")) == 1
    levels = [int(name[1]) for name, _ in shown.elements if re.fullmatch("h[1-6]", name)]
    assert all(below <= above + 1 for above, below in pairwise(levels))
    assert len(set(shown.ids)) == len(shown.ids)
    for attributes in shown.all("section"):
        assert attributes["aria-labelledby"] in shown.ids
    assert all(attributes.get("aria-label") for attributes in shown.all("nav"))
    assert len(shown.all("caption")) == len(shown.all("table"))
    assert all(attributes.get("scope") in ("row", "col") for attributes in shown.all("th"))
    assert all(text.strip() for element, text in shown.texts if element in ("a", "h1", "h2", "h3", "title"))


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2) of #rgb or #rrggbb."""
    digits = colour[1:] if len(colour) == 7 else "".join(each * 2 for each in colour[1:])
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_light_and_dark_have_the_contrast_of_wcag_aaa() -> None:
    light, dark = (dict(re.findall(r"--([a-z]+): (#[0-9a-f]+);", each)) for each in re.findall(r":root {.*?}", STYLE))
    assert light.keys() == dark.keys() == set(re.findall(r"var\(--([a-z]+)\)", STYLE))
    assert set(re.findall(r"(?<![a-z-])color: ([^;]+);", STYLE)) == {"var(--ink)", "var(--link)"}
    assert set(re.findall(r"background: ([^;]+);", STYLE)) == {"var(--paper)", "var(--panel)"}
    for colours in (light, dark):
        for background in (colours["paper"], colours["panel"]):
            assert min(contrast(colours[text], background) for text in ("ink", "link")) >= 7
            assert contrast(colours["line"], background) >= 3


async def test_the_headers_allow_the_one_style_and_nothing_else(node: InProcess) -> None:
    answer, body = await read(node, "/docs")
    (style,) = re.findall(b"<style>(.*?)</style>", body, re.DOTALL)
    allowed = base64.b64encode(hashlib.sha256(style).digest()).decode()
    policy = dict(each.split(" ", 1) for each in answer.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["style-src"] == f"'sha256-{allowed}'"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("start", ["/docs", "/problems/replayed"])
async def test_every_link_leads_somewhere(node: InProcess, start: str) -> None:
    pages: dict[str, Page | None] = {}
    shown = await page(node, start)
    for attributes in shown.all("a"):
        path, _, fragment = urljoin(start, attributes["href"]).partition("#")
        if path not in pages:
            answer, body = await read(node, path)
            assert answer.status == 200, path
            pages[path] = Page(body.decode()) if answer.content_type == "text/html" else None
        found = pages[path]
        assert not fragment or (found is not None and fragment in found.ids)
    assert pages


async def test_each_reader_sees_its_own_services(node: InProcess) -> None:
    public, payroll, audit = [await page(node, "/docs", agency) for agency in (None, "payroll", "audit-office")]
    names = [f"registry.{name}.v1" for name in ("mark", "note", "person")]
    services = [[name for name in names if f"service-{name}" in shown.ids] for shown in (public, payroll, audit)]
    assert services == [names[:1], names, []]
    for private in ("registry/person", PERSON["name"], "a-1"):
        assert str(private) not in public.text + audit.text
        assert str(private) in payroll.text


async def test_a_granted_service_is_shown_as_it_answers(node: InProcess) -> None:
    shown = await page(node, "/docs", "payroll")
    examples = [orjson.loads(text) for element, text in shown.texts if element == "code" and text.startswith("{")]
    assert {name: PERSON[name] for name in ("id", "name", "salary")} in examples
    assert ("code", "/salary/amount") in shown.texts
    assert "phones" not in shown.text


async def test_the_reasons_for_which_a_system_may_say_no_are_shown(tmp_path: Path) -> None:
    async with node_in_process(tmp_path, puppet_deployment(tmp_path)) as node:
        shown = await page(node, "/docs", "payroll")
    assert ("code", "not_found") in shown.texts
    assert shown.text.count("not_found: There is no such person") == 3, "once for each service of the system"


async def test_text_of_the_configuration_is_text(node: InProcess) -> None:
    shown = await page(node)
    assert SHOWN in shown.text
    assert shown.all("b") == []


async def test_every_code_has_its_page_and_stands_in_the_table(node: InProcess) -> None:
    table = await page(node)
    for code, problem in TABLE.items():
        shown = await page(node, f"/problems/{code}")
        assert f"problem-{code}" in table.ids
        for text in (problem.title, problem.advice, str(problem.status)):
            assert text in shown.text
            assert text in table.text


async def test_the_type_of_a_problem_leads_to_its_page(node: InProcess) -> None:
    answer, body = await read(node, "/exchanges/01a0c450-6c00-71b6-b1a8-e21f6124ae04")
    assert answer.status == 401
    shown = await page(node, orjson.loads(body)["type"].removeprefix(node.url))
    assert ("h1", "signature_missing") in shown.texts


async def test_an_unknown_code_is_an_unknown_path(node: InProcess) -> None:
    answer, body = await read(node, "/problems/no_such_code")
    assert (answer.status, orjson.loads(body)["code"]) == (404, "path_unknown")
