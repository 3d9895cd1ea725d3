"""Recordings: what is kept of a call of a real system, what is not, and that a replay reaches no network."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gsb.cli.adapter.new import files
from gsb.model import new_id
from gsb.testing import Subject, find_subject
from gsb.testing.cassette import Cassette, Played, Tape
from gsb.testing.offline import SocketForbidden, replayed, sockets_forbidden, tried
from gsb.testing.peer import Mood, peering
from gsb.testing.scrub import Unscrubbed, disguised, scrubbed
from gsb.testing.subject import Tables
from tests.support.deployment import free_ports

PERSON, TOKEN = "P-7731", "a-real-token-91c2"
OWNER = {
    "parcel": "L-000042",
    "owner": PERSON,
    "cadastre": "Rue Diallo 9",
    "heirs": [{PERSON: "Awa Diallo", "age": 61}],
}


@pytest.fixture
def subject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Subject:
    monkeypatch.syspath_prepend(str(tmp_path))
    return written(tmp_path, f"recorded_{len(list(tmp_path.parent.iterdir()))}")


def written(root: Path, name: str, edits: Sequence[tuple[str, str, str]] = ()) -> Subject:
    for path, text in files(name):
        (root / name / path).parent.mkdir(parents=True, exist_ok=True)
        (root / name / path).write_text(text, "utf-8")
    for file, old, new in edits:
        place = root / name / name / file
        assert old in place.read_text("utf-8"), old
        place.write_text(place.read_text("utf-8").replace(old, new), "utf-8")
    return find_subject(str(root / name))


async def recorded(subject: Subject, folder: Path, service: str, body: Any, *calls: Played) -> Cassette:
    """What comes of one call of a system that answers so, secrets and people in it."""
    (folder / "token.txt").write_text(TOKEN + "\n")
    asked = Cassette(service=of(subject, service), exchange=new_id(), request=body, reply={}).asked()
    async with peering() as system:
        system.tape = Tape([Cassette(service="a/b/v1", request={}, reply={}, calls=calls)])
        tables = Tables({"url": f"{system.url}/api", "token": "token.txt"}, {})
        found = await tried(subject, folder, tables, asked, 5.0)
        assert dict(system.seen[0].headers)["authorization"] == f"Bearer {TOKEN}"
    kept = found.cassette("recorded")
    assert kept is not None, found.came
    return kept


def of(subject: Subject, service: str) -> str:
    return next(each for each in subject.contract.services if f"/{service}/" in each)


PARCEL = Played(
    method="GET",
    path="/api/parcels/L-000042",
    headers={"Set-Cookie": "session=canary-cookie", "X-Clerk": "canary-clerk"},
    answer=OWNER,
)


async def test_a_recording_is_kept_without_secrets_people_and_whatever_nobody_needs(
    subject: Subject, tmp_path: Path
) -> None:
    recording = await recorded(subject, tmp_path, "parcel", {"parcel": "L-000042"}, PARCEL)
    assert PERSON in recording.document().decode()
    kept = await scrubbed(subject, recording, [TOKEN])
    text = kept.document().decode()
    for gone in (PERSON, TOKEN, "Diallo", "canary"):
        assert gone not in text
    assert kept.request == {"parcel": "L-000042"}, "which is nobody's"
    assert kept.reply["owner"] == kept.calls[0].answer["owner"], "the same person is the same again"
    assert subject.schemas[f"{kept.service}/reply"].faults(kept.reply) == []
    (heirs,) = kept.calls[0].answer["heirs"]
    assert heirs["age"] != 61
    assert kept.calls[0].headers == {}
    assert (await replayed(subject, kept)).faults == []


async def test_what_is_sent_is_scrubbed_too_and_the_outcome_stays_what_it_was(subject: Subject, tmp_path: Path) -> None:
    body = {"parcel": "L-000042", "to": PERSON}
    answer = {"reference": "T-2026-17", "filed_on": "2026-09-21", "clerk": TOKEN, "by": f"for {PERSON}"}

    class Filing(Tape):
        def play(self, method: str, path: str, content: bytes) -> Played:
            return Played(method=method, path=path, status=201, answer=answer)

    (tmp_path / "token.txt").write_text(TOKEN)
    asked = Cassette(service=of(subject, "transfer"), exchange=new_id(), request=body, reply={}).asked()
    async with peering() as system:
        system.tape = Filing(())
        found = await tried(
            subject, tmp_path, Tables({"url": f"{system.url}/api", "token": "token.txt"}, {}), asked, 5.0
        )
    recording = found.cassette("recorded")
    assert recording is not None
    kept = await scrubbed(subject, recording, [TOKEN])
    text = kept.document().decode()
    assert PERSON not in text
    assert TOKEN not in text
    assert kept.calls[0].content["to"] == kept.request["to"] != PERSON
    assert kept.reply == {"reference": "T-2026-17", "filed_on": "2026-09-21"}, "on which the outcome depends"


def test_amounts_that_the_adapter_rounds_go_too() -> None:
    subject = find_subject("tax")
    recording = subject.cassettes["income-tax"]
    (call,) = recording.calls
    person = call.answer["persons"]["person"]
    person["income_tax"]["2026-09"], person["social_security_contribution"]["2026-09"] = 630.00390625, 83.998046875
    recording = recording.model_copy(update={"calls": (call,)})
    kept = asyncio.run(scrubbed(subject, recording, []))
    assert recording.reply["income_tax"] != kept.reply["income_tax"]
    assert b"630.00" not in kept.document()


async def test_the_token_of_a_session_is_gone_from_the_answer_and_from_what_is_sent_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    look_up = "answer = await self._ask(\"GET\", f\"/parcels/{quote(request.body['parcel'], safe='')}\")"
    session = """login = await self._ask("POST", "/login", {"user": "bus"})
                asked = {"session": login.json()["session"], "parcel": request.body["parcel"]}
                answer = await self._ask("POST", "/query", asked)"""
    subject = written(tmp_path, "recorded_session", [("__init__.py", look_up, session)])
    said = {"session": "Xk7-session-token", "user": "bus"}
    login = Played(method="POST", path="/api/login", content={"user": "bus"}, answer=said)
    asked = {"session": said["session"], "parcel": "L-000042"}
    found = Played(method="POST", path="/api/query", content=asked, answer=OWNER)
    recording = await recorded(subject, tmp_path, "parcel", {"parcel": "L-000042"}, login, found)
    assert recording.document().decode().count("Xk7-session-token") == 2
    kept = await scrubbed(subject, recording, [TOKEN])
    assert "Xk7" not in kept.document().decode()
    assert kept.calls[0].answer["session"] == kept.calls[1].content["session"]
    assert (await replayed(subject, kept)).faults == []


async def test_a_refusal_is_kept_with_its_code(subject: Subject, tmp_path: Path) -> None:
    absent = Played(method="GET", path="/api/parcels/L-000042", status=404, answer_text=f"nothing of {PERSON}")
    recording = await recorded(subject, tmp_path, "parcel", {"parcel": "L-000042"}, absent)
    assert (recording.refused, recording.reply) == ("not_found", None)
    assert (await scrubbed(subject, recording, [TOKEN])).refused == "not_found"


async def test_what_cannot_be_scrubbed_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    only = [("../schemas/recorded-only/parcel/v1/reply.json", '"^P-[0-9]{4}$"', f'"^{PERSON}$"')]
    subject = written(tmp_path, "recorded_only", only)
    recording = await recorded(subject, tmp_path, "parcel", {"parcel": "L-000042"}, PARCEL)
    with pytest.raises(Unscrubbed, match="at /owner fits") as refused:
        await scrubbed(subject, recording, [TOKEN])
    assert PERSON not in str(refused.value)

    encoded = [("__init__.py", '"owner": _text(answer, "owner")', '"owner": _text(answer, "owner")[::-1][::-1]')]
    subject = written(tmp_path, "recorded_coded", [*encoded])
    hidden = PARCEL.model_copy(update={"answer": OWNER | {"code": PERSON[::-1]}})
    recording = await recorded(subject, tmp_path, "parcel", {"parcel": "L-000042"}, hidden)
    kept = await scrubbed(subject, recording, [TOKEN])
    assert PERSON[::-1] not in kept.document().decode(), "nobody needed it"


def test_amounts_are_the_same_amounts_however_a_system_writes_them() -> None:
    """The tax engine's answer holds 630.0 where the reply says 630.00."""
    subject = find_subject("tax")
    recording = subject.cassettes["income-tax"]
    kept = asyncio.run(scrubbed(subject, recording, []))
    before, after = recording.reply, kept.reply
    assert before.keys() == after.keys()
    assert [name for name in before if before[name] == after[name]] == ["period", "rules"]
    (played,), (was,) = kept.calls, recording.calls
    figures = [call.answer["persons"]["person"]["income_tax"]["2026-09"] for call in (was, played)]
    assert figures[0] == 630.0 != figures[1]
    assert kept.request["gross"]["currency"] == "XOF", "one of few words is found elsewhere too"
    assert asyncio.run(replayed(subject, kept)).faults == []


def test_a_disguise_keeps_the_form() -> None:
    for _ in range(20):
        new = disguised("Zoë-Ann P-0001")
        assert [each.isdigit() for each in new] == [each.isdigit() for each in "Zoë-Ann P-0001"]
        assert [each.isupper() for each in new] == [each.isupper() for each in "Zoë-Ann P-0001"]
        assert disguised("P-0001", digits_only=True).startswith("P-")
        assert not any(old == fresh for old, fresh in zip("abcABC123", disguised("abcABC123"), strict=True))


# --- replays


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (("__init__.py", "/parcels/", "/plots/"), "asks for GET /api/plots/L-000042, which the cassette does not hold"),
        (("__init__.py", "json=content", 'json={"x": 1}'), "what it sends with GET /api/parcels/L-000042 is not what"),
        (("__init__.py", 'raise Refused("not_found")', 'raise Refused("other")'), ""),
        (("__init__.py", '"parcel": _text(answer, "parcel")', '"parcel": "L-000001"'), "it ends otherwise"),
        (("contract/parcel.json", '"calls": [', '"calls": [{"method": "GET", "path": "/more"}, '), "not ask for GET"),
    ],
    ids=["path", "content", "elsewhere", "reply", "unasked"],
)
async def test_a_replay_tells_what_became_different(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edit: tuple[str, str, str], fault: str, request: Any
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    subject = written(tmp_path, f"changed_{request.node.callspec.id}", [edit])
    faults = (await replayed(subject, subject.cassettes["parcel"])).faults
    assert bool(faults) == bool(fault)
    assert any(fault in each for each in faults) or not fault


async def test_a_replay_reaches_no_network_whatever_the_adapter_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    async with peering() as elsewhere:
        own = (
            f"import socket\n        socket.create_connection(('127.0.0.1', {elsewhere.port}))\n        answer = await"
        )
        edit = ("__init__.py", "answer = await self.context.http", f"{own} self.context.http")
        subject = written(tmp_path, "changed_network", [edit])
        played = await replayed(subject, subject.cassettes["parcel"])
        assert isinstance(played.came.error, SocketForbidden)
        assert elsewhere.mood is Mood.PLAY
        assert elsewhere.seen == []


def test_sockets_are_forbidden_only_within() -> None:
    (port,) = free_ports(1)
    with sockets_forbidden(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        for reach in (
            lambda: socket.create_connection(("127.0.0.1", port)),
            lambda: socket.getaddrinfo("localhost", port),
            lambda: datagrams.sendto(b"x", ("127.0.0.1", port)),
        ):
            with pytest.raises(SocketForbidden):
                reach()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
