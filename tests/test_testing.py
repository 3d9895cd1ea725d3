"""The contract suite, tried with an adapter that is right, and for each rule with one that breaks it and no other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from gsb.cli.adapter.new import files
from gsb.testing import RULES, AdapterContract, Subject, Unfit, Verdict, find_subject, grade
from gsb.testing.contract import NAMES, judge

Edit = tuple[str, str, str]
"""A file of the adapter, what stands there, and the mistake that takes its place."""

CODE, CONTRACT = "__init__.py", "contract/contract.toml"
HANDLE = "    async def handle(self, request: Request) -> Reply:\n"
DO = HANDLE.replace("handle", "do")
ASKED = "        answer = await self.context.http.request("
ASK = f"{ASKED}method, settings.url + path, json=content, headers=headers)\n"


def instead(errors: str, then: str) -> list[Edit]:
    """Wrap the request to the system: where one of these errors comes, do something else."""
    lines = f"        try:\n    {ASK}        except {errors} as error:\n            {then}\n"
    return [(CODE, ASK, lines)]


MADE_UP = (
    'return HttpReply(200, {}, b\'{"parcel": "L-000042", "owner": "P-1", "reference": "T", "filed_on": "2026-09-21"}\')'
)
UNLESS = "if not ({}):\n                raise\n            "
IMPORT: Edit = (
    CODE,
    "from __future__ import annotations\n",
    "from __future__ import annotations\n\nimport asyncio\nimport time\nimport uuid\n",
)

MISTAKES: dict[str, Sequence[Edit]] = {
    "manifest": [("adapter.toml", 'not_transferable = "The parcel cannot change hands now"\n', "")],
    "settings": [(CODE, '    """File with the token by which the registry knows the bus."""\n', "")],
    "examples": [("contract/transfer.json", "L-000042", "L-42")],
    "imports": [(CODE, "from gsb.sdk import (\n", "from gsb.model import Effect\nfrom gsb.sdk import (\n")],
    "reply": [(CODE, '"owner": _text(answer, "owner")', '"owner": [_text(answer, "owner")]')],
    "down": instead("Unavailable", UNLESS.format("not error.sent") + "raise Broken(error.detail) from error"),
    "slow": instead("Unavailable", UNLESS.format('"Timeout" in error.detail') + MADE_UP),
    "garbage": [
        (CODE, "    value = body.get(name) if isinstance(body, dict) else None\n", "    value = body[name]\n"),
    ],
    "half_closed": instead("Unavailable", UNLESS.format('"broke off" in error.detail') + MADE_UP),
    "throttled": [(CODE, ", after=answer.after())", ")")],
    "sent": instead(
        "Unavailable",
        UNLESS.format('"Disconnected" in error.detail') + "raise Unavailable(error.detail, sent=False) from error",
    ),
    "cancelled": [
        IMPORT,
        *instead("asyncio.CancelledError", "raise Unavailable('given up', sent=True) from error"),
    ],
    "repeated": [
        IMPORT,
        (
            CODE,
            'f"/transfers/{request.exchange}", request.body)',
            'f"/transfers/{request.exchange}", request.body | {"reference": str(uuid.uuid4())})',
        ),
    ],
    "concurrency": [
        IMPORT,
        (CODE, "    Settings = ", "    gate = asyncio.Lock()\n    Settings = "),
        (CODE, HANDLE, f"{HANDLE}        async with self.gate:\n            return await self.do(request)\n\n{DO}"),
    ],
    "close": [
        IMPORT,
        (CODE, HANDLE, f"{HANDLE}        self.later = asyncio.create_task(asyncio.sleep(60))\n"),
    ],
    "private": [(CODE, HANDLE, f'{HANDLE}        self.context.log.info("asked for %s", request.body)\n')],
    "loop": [IMPORT, (CODE, HANDLE, f"{HANDLE}        time.sleep(0.08)\n")],
}


BOTH = """path = f"/parcels/{request.body['parcel']}"
                answer, _ = await asyncio.gather(self._ask("GET", path), self._ask("GET", path))"""
THREAD = 'threading = __import__("threading"); threading.Thread(target=threading.Event().wait, args=(8,)).start()\n'
PUT = 'answer = await self._ask("PUT", f"/transfers/{request.exchange}", request.body)\n'
LOOK = 'await self._ask("GET", f"/parcels/{request.body[\'parcel\']}")\n'
ANSWERED = """"answer": {
        "reference": "T-2026-17",
        "filed_on": "2026-09-21"
      }
    }"""
LOOKED = """,
    {"method": "GET", "path": "/api/parcels/L-000042", "answer": {"parcel": "L-000042", "owner": "P-1002"}}"""
LATER: list[Edit] = [
    (CODE, PUT, f"{PUT}                {LOOK}"),
    ("contract/transfer.json", ANSWERED, f"{ANSWERED}{LOOKED}"),
]
"""It looks once more after it acted, and if nothing listens any more it says that nothing was sent."""
MARKED: Edit = ("contract/transfer.json", '"status": 201,', '"status": 201, "acts": true,')
HEEDED: list[Edit] = [
    (CODE, f"                {LOOK}", f"                with acted():\n                    {LOOK}"),
    (CODE, "    Unavailable,\n)", "    Unavailable,\n    acted,\n)"),
]
SHOWN = """    def __repr__(self) -> str:
        return f"LandRegistry({self.context.settings.token.read()})"

    async def check"""


def adapter(root: Path, name: str, mistakes: Sequence[Edit] = ()) -> Subject:
    """The template's adapter under this name, with these mistakes."""
    folder = root / name
    for path, text in files(name):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, "utf-8")
    package = folder / name
    for file, old, new in [(CONTRACT, "[settings]", "timeout = 0.25\n\n[settings]"), *mistakes]:
        text = (package / file).read_text("utf-8")
        assert old in text, (file, old)
        (package / file).write_text(text.replace(old, new), "utf-8")
    return find_subject(str(folder))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))  # so that what the suite adds is taken away again
    return tmp_path


def failed(verdicts: Sequence[Verdict]) -> dict[str, Sequence[str]]:
    return {verdict.rule.name: verdict.reasons for verdict in verdicts if verdict.result == "fail"}


def test_there_is_a_mistake_for_every_rule() -> None:
    assert set(MISTAKES) == NAMES
    assert len(RULES) == 17


def test_the_adapter_that_all_mistakes_are_made_in_makes_none(root: Path) -> None:
    verdicts = asyncio.run(grade(adapter(root, "bad_nothing")))
    assert failed(verdicts) == {}
    assert [verdict.rule.name for verdict in verdicts if verdict.result == "exempt"] == []


@pytest.mark.slow
@pytest.mark.parametrize("rule", list(MISTAKES))
def test_a_mistake_breaks_its_rule_and_no_other(root: Path, rule: str) -> None:
    verdicts = asyncio.run(grade(adapter(root, f"bad_{rule}", MISTAKES[rule])))
    assert set(failed(verdicts)) == {rule}, failed(verdicts)
    if rule == "garbage":
        assert "what escapes is TypeError from __init__.py:" in failed(verdicts)[rule][0]


@pytest.mark.parametrize(
    ("rule", "mistakes"),
    [
        (
            "concurrency",
            [
                IMPORT,
                (
                    CODE,
                    "answer = await self._ask(\"GET\", f\"/parcels/{quote(request.body['parcel'], safe='')}\")",
                    BOTH,
                ),
            ],
        ),
        ("private", [(CODE, HANDLE, f"{HANDLE}        print(self.context.settings.token.read())\n")]),
        ("private", [(CODE, "    async def check", SHOWN)]),
        ("close", [(CODE, HANDLE, f"{HANDLE}        {THREAD}")]),
        ("sent", [(CODE, "sent=True, after", "sent=False, after")]),
        ("sent", LATER),
        ("sent", [*LATER, MARKED]),
        ("sent", [*LATER, MARKED, *HEEDED]),
    ],
    ids=["more-calls", "printed", "repr", "thread", "nobody-says", "later", "later-marked", "nobody-says-later"],
)
def test_there_are_more_ways_to_break_a_rule(
    root: Path, rule: str, mistakes: Sequence[Edit], request: pytest.FixtureRequest
) -> None:
    name = "bad_" + request.node.callspec.id.replace("-", "_")
    (found,) = [each for each in RULES if each.name == rule]
    verdict = asyncio.run(judge(adapter(root, name, mistakes), found))
    # A status by which the system says that it did nothing is its own word: the rule is of what nobody said.
    assert verdict.result == ("pass" if "nobody-says" in request.node.callspec.id else "fail"), verdict.reasons


# --- what is not tried


def test_an_exemption_is_told_with_its_reason_and_must_name_a_rule(root: Path) -> None:
    excuse = (CONTRACT, "[settings]", '[exempt]\nthrottled = "it has no limit"\n\n[settings]')
    verdicts = asyncio.run(grade(adapter(root, "bad_excused", [*MISTAKES["throttled"], excuse])))
    assert failed(verdicts) == {}
    assert [(each.rule.name, each.reasons) for each in verdicts if each.result == "exempt"] == [
        ("throttled", ("it has no limit",))
    ]
    excuse = (CONTRACT, "[settings]", '[exempt]\nthrotled = "it has no limit"\n\n[settings]')
    with pytest.raises(Unfit, match="throtled, which is no rule"):
        asyncio.run(grade(adapter(root, "bad_excuse", [excuse])))


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        ((CONTRACT, 'url = "{url}/api"', 'ulr = "{url}/api"'), "ulr: Extra"),
        ((CONTRACT, "[settings]", "[setting]"), "setting: Extra"),
        ((CONTRACT, "parcel/v1", "parsel/v1"), "schemas"),
        ((CONTRACT, '"token.txt"', '"none.txt"'), "there is no file"),
        (("contract/parcel.json", '"service"', '"servcie"'), "parcel.json"),
        (("contract/parcel.json", '"reply"', '"refused": "not_found", "reply"'), "a reply, or the code"),
        (("adapter.toml", "api = 1", "api = 2"), "manifest"),
        ((CODE, "from __future__", "import nothing_at_all\nfrom __future__"), "cannot be imported"),
    ],
    ids=["setting", "table", "schemas", "secret", "cassette", "outcomes", "manifest", "import"],
)
def test_what_cannot_be_tried_is_told_in_a_sentence(
    root: Path, edit: Edit, text: str, request: pytest.FixtureRequest
) -> None:
    with pytest.raises(Unfit, match=text):
        asyncio.run(grade(adapter(root, f"unfit_{request.node.callspec.id}", [edit])))


def test_an_adapter_that_cannot_even_be_made_breaks_what_needs_it(root: Path) -> None:
    broken = (
        CODE,
        "    async def check",
        "    def __init__(self, context):\n        raise KeyError('x')\n\n    async def check",
    )
    verdicts = asyncio.run(grade(adapter(root, "bad_made", [broken])))
    assert failed(verdicts)["reply"] == ("KeyError escaped the adapter: 'x'",)
    assert {each.rule.name for each in verdicts if each.result == "pass"} == {
        "manifest",
        "settings",
        "examples",
        "imports",
    }


def test_a_close_that_never_ends_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gsb.testing.subject.GRACE", 0.3)
    endless = (CODE, HANDLE, f"    async def close(self) -> None:\n        await asyncio.Event().wait()\n\n{HANDLE}")
    verdicts = asyncio.run(grade(adapter(root, "bad_farewell", [IMPORT, endless])))
    assert "close takes more than 0.3 s" in failed(verdicts)["close"][0]


# --- as a class of tests


def test_the_class_has_a_test_for_each_rule(root: Path) -> None:
    adapter(root, "bad_class", MISTAKES["throttled"])

    class Suite(AdapterContract):
        adapter = root / "bad_class"

    names = {name for name in vars(AdapterContract) if name.startswith("test_")}
    assert names == {f"test_{rule}" for rule in NAMES}
    suite = Suite()
    suite.test_manifest()  # type: ignore[attr-defined]
    with pytest.raises(AssertionError, match="429 with Retry-After is a pause of that length:\nbad-class/parcel/v1: "):
        suite.test_throttled()  # type: ignore[attr-defined]
