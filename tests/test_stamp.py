"""Time-stamps by OpenSSL's own authority, behind a small server on the loopback address."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from rfc3161_client import HashAlgorithm, TimestampRequestBuilder
from typer.testing import CliRunner, Result

from gsb.cli.main import app
from gsb.config import TimestampTable
from gsb.stamp import AGAIN, Stamper, StampWrong, check_stamp, read_certificates
from tests.support.deployment import standard
from tests.support.logs import WrittenLog, content
from tests.support.needs import needs
from tests.support.node import node_in_process
from tests.support.recording import Hands, recording

CONFIG = """
[tsa]
default_tsa = here
[here]
serial = {folder}/serial
crypto_device = builtin
signer_cert = {folder}/tsa.pem
signer_key = {folder}/tsa.key
signer_digest = sha256
default_policy = 1.3.6.1.4.1.13762.3
digests = sha256
accuracy = secs:1
ess_cert_id_alg = sha256
"""
"""Without ``certs``: a second certificate would be written in an order that is no DER, and readers refuse that."""


def write_authority(folder: Path) -> None:
    """Keys and certificates of an authority with a root, and the configuration of ``openssl ts``."""
    folder.mkdir()
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = certificate("root", root_key, "root", root_key, x509.BasicConstraints(ca=True, path_length=None))
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING])
    (folder / "root.pem").write_bytes(root.public_bytes(serialization.Encoding.PEM))
    leaf = certificate("authority", key, "root", root_key, usage)
    (folder / "tsa.pem").write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    (folder / "tsa.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (folder / "serial").write_text("01\n")
    (folder / "openssl.cnf").write_text(CONFIG.format(folder=folder))


def certificate(
    name: str, key: ec.EllipticCurvePrivateKey, by: str, by_key: ec.EllipticCurvePrivateKey, what: x509.ExtensionType
) -> x509.Certificate:
    now = datetime.now(UTC)
    subject, issuer = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each)]) for each in (name, by))
    made = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=2))
    made = made.add_extension(what, critical=True)
    made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    made = made.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by_key.public_key()), critical=False)
    return made.sign(by_key, hashes.SHA256())


@dataclass
class Authority:
    """``openssl ts`` behind HTTP."""

    folder: Path
    url: str = ""
    asked: int = 0
    status: int = 200
    answers: list[bytes] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.folder / "root.pem"

    async def stamp(self, note: bytes) -> bytes:
        """A token for this note, without HTTP."""
        request = TimestampRequestBuilder().data(note).hash_algorithm(HashAlgorithm.SHA256).build()
        return await self.answer(request.as_bytes())

    async def answer(self, request: bytes) -> bytes:
        query, answer = self.folder / "query", self.folder / "answer"
        query.write_bytes(request)
        words = ["-reply", "-config", self.folder / "openssl.cnf", "-queryfile", query, "-out", answer]
        ran = await asyncio.create_subprocess_exec("openssl", "ts", *map(str, words), stderr=asyncio.subprocess.DEVNULL)
        assert await ran.wait() == 0
        return answer.read_bytes()

    async def reply(self, request: web.BaseRequest) -> web.Response:
        assert request.headers["Content-Type"] == "application/timestamp-query"
        self.asked += 1
        self.answers.append(await self.answer(await request.read()))
        body = self.answers[-1] if self.status == 200 else b""
        return web.Response(status=self.status, body=body, content_type="application/timestamp-reply")


@asynccontextmanager
async def authority(folder: Path) -> AsyncIterator[Authority]:
    needs(shutil.which("openssl") is not None, "openssl is missing: make deps-test")
    write_authority(folder)
    made = Authority(folder)
    runner = web.ServerRunner(web.Server(made.reply))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/tsa"
    try:
        yield made
    finally:
        await runner.cleanup()


def stamper(hands: Hands, by: Authority, every: float = 86_400) -> Stamper:
    table = TimestampTable(url=by.url, certificates=by.root, every=every)
    return Stamper(hands.store, hands.deployment.log_folder, table, hands.clock, hands.clock.steady)


def tokens(hands: Hands, name: str = "2026") -> list[int]:
    return stamped(hands.deployment.log_folder / "timestamps" / name)


def age(hands: Hands, seconds: float, name: str = "2026") -> None:
    """Let the tokens be as old as that by the test's clock."""
    for path in (hands.deployment.log_folder / "timestamps" / name).glob("*.tsr"):
        os.utime(path, (hands.clock.now - seconds,) * 2)


async def test_a_growing_log_is_stamped_once_a_day(tmp_path: Path) -> None:
    async with authority(tmp_path / "tsa") as by, recording(tmp_path) as hands:
        stamping = stamper(hands, by)
        await stamping.look()
        assert by.asked == 0, "nothing is published yet"
        await hands.record(1)
        await stamping.look()
        assert tokens(hands) == [2]
        age(hands, 86_399)
        await hands.record(2)
        await stamping.look()
        assert tokens(hands) == [2]
        age(hands, 86_400)
        await stamping.look()
        assert tokens(hands) == [2, 3]
        age(hands, 86_400)
        await stamping.look()
        assert by.asked == 2, "a log that did not grow needs no other"
        folder = hands.deployment.log_folder / "timestamps/2026"
        note = (folder / "3.checkpoint").read_bytes()
        assert note == (hands.folder() / "checkpoint").read_bytes()
        at = check_stamp((folder / "3.tsr").read_bytes(), note, read_certificates(by.root))
        assert abs(datetime.now(UTC) - at) < timedelta(minutes=1)


async def test_a_closed_log_is_stamped_as_it_ended(tmp_path: Path) -> None:
    async with authority(tmp_path / "tsa") as by, recording(tmp_path) as hands:
        stamping = stamper(hands, by)
        await hands.record(1)
        await stamping.look()
        hands.clock.pass_(365 * 86_400)
        for _ in range(3):
            await hands.recorder.look()
        await stamping.look()
        assert (tokens(hands), tokens(hands, "2027")) == ([2, 3], [1])


async def test_an_authority_that_fails_is_asked_again_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with authority(tmp_path / "tsa") as by, recording(tmp_path) as hands:
        stamping = stamper(hands, by)
        await hands.record(1)
        by.status = 500
        await stamping.look()
        await stamping.look()
        assert (by.asked, tokens(hands)) == (1, [])
        by.status = 200
        hands.clock.pass_(AGAIN)
        await stamping.look()
        assert tokens(hands) == [2]
    told = [record.message for record in caplog.records if record.name == "gsb.stamp"]
    assert told == [
        f"no time-stamp from {by.url}: answers 500; it is asked again every few minutes",
        "checkpoints are time-stamped again",
    ]


async def test_an_answer_to_something_else_is_not_kept(tmp_path: Path) -> None:
    async with authority(tmp_path / "tsa") as by, authority(tmp_path / "other") as other:
        async with recording(tmp_path) as hands:
            await hands.record(1)
            await stamper(hands, by).look()
            note = (hands.folder() / "checkpoint").read_bytes()
        (token,) = by.answers
        trusted = read_certificates(by.root)
        check_stamp(token, note, trusted)
        for wrong in (
            (token, note + b"x", trusted, None),
            (token, note, read_certificates(other.root), None),
            (token, note, [], None),
            (token, note, trusted, 7),
            (token[:-1], note, trusted, None),
            (b"", note, trusted, None),
        ):
            with pytest.raises(StampWrong):
                check_stamp(*wrong)
        for at in range(40, len(token), 37):
            spoilt = token[:at] + bytes([token[at] ^ 1]) + token[at + 1 :]
            assert spoilt_or_same(spoilt, token, note, trusted)


def spoilt_or_same(spoilt: bytes, token: bytes, note: bytes, trusted: object) -> bool:
    """Whether a spoilt token is refused, or says the same: not every byte of DER is signed."""
    certificates = list(trusted)  # type: ignore[call-overload]
    try:
        return check_stamp(spoilt, note, certificates) == check_stamp(token, note, certificates)
    except StampWrong:
        return True


async def test_whoever_verifies_a_log_is_told_when_it_existed(tmp_path: Path) -> None:
    async with authority(tmp_path / "tsa") as by, recording(tmp_path) as hands:
        await hands.record(1)
        await stamper(hands, by).look()
        age(hands, 90_000)
        await hands.record(*range(2, 300))
        await stamper(hands, by).look()
        await hands.record(301, 302)
        vkey, folder = hands.verifier().vkey, hands.deployment.log_folder
        stamps = folder / "timestamps/2026"
        given = ("--key", vkey, "--timestamps", stamps, "--authority", by.root)
        ran = gsb("log", "verify", folder, *given)
        assert ran.exit_code == 0, ran.output
        assert "its first 2 entries existed at 20" in ran.stdout
        told = json.loads(gsb("log", "verify", folder, *given, "--json").stdout)
        assert [each["size"] for each in told["timestamps"]] == [2, 300]
        data, token = ("-data", stamps / "300.checkpoint"), ("-in", stamps / "300.tsr")
        words = ["openssl", "ts", "-verify", *data, *token, "-CAfile", by.root, "-untrusted", by.folder / "tsa.pem"]
        ran_there = await asyncio.create_subprocess_exec(
            *map(str, words), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        assert await ran_there.wait() == 0, "OpenSSL's own verifier agrees"
        assert gsb("log", "verify", folder, "--key", vkey).exit_code == 0, "unasked, they are in nobody's way"
        assert gsb("log", "verify", folder, "--key", vkey, "--timestamps", stamps).exit_code == 2


async def test_time_stamps_that_are_not_there_are_not_verified_in_silence(tmp_path: Path) -> None:
    """A word misspelt, or somebody who took them away."""
    async with authority(tmp_path / "tsa") as by:
        written = WrittenLog(tmp_path / "log")
        written.grow_to(5)
        ran = gsb(
            "log",
            "verify",
            tmp_path / "log",
            "--key",
            written.vkey,
            "--timestamps",
            tmp_path / "tsa/none",
            "--authority",
            by.root,
        )
        assert (ran.exit_code, "none: holds no time-stamp" in ran.stderr) == (1, True)


async def test_a_log_written_anew_is_not_the_one_that_was_stamped(tmp_path: Path) -> None:
    async with authority(tmp_path / "tsa") as by:
        first, anew = WrittenLog(tmp_path / "first"), tmp_path / "anew"
        note = first.grow_to(5)
        other = WrittenLog(anew, key=first.signer.key)
        other.grow([content(7)] * 9)
        stamps = tmp_path / "stamps"
        stamps.mkdir()
        (stamps / "5.checkpoint").write_bytes(note)
        (stamps / "5.tsr").write_bytes(await by.stamp(note))
        given = ("--key", first.vkey, "--timestamps", stamps, "--authority", by.root)
        assert gsb("log", "verify", tmp_path / "first", *given).exit_code == 0
        ran = gsb("log", "verify", anew, *given)
        assert ran.exit_code == 1
        assert "5.tsr: the log does not begin with the 5 entries that it stamped" in ran.stderr
        (stamps / "5.tsr").write_bytes(await by.stamp(other.grow_to(10)))
        ran = gsb("log", "verify", tmp_path / "first", *given)
        assert (ran.exit_code, "5.tsr: " in ran.stderr) == (1, True)


def gsb(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


async def test_a_node_has_its_log_stamped(tmp_path: Path) -> None:
    async with authority(tmp_path / "tsa") as by:
        deployment = standard(tmp_path)
        deployment.gsb["log"]["timestamp"] = {"url": by.url, "certificates": str(by.root)}
        async with node_in_process(tmp_path, deployment), asyncio.timeout(90):
            while True:
                # Whatever year it is.
                if any(map(stamped, (deployment.log_folder / "timestamps").glob("*"))):
                    return
                await asyncio.sleep(0.05)


def stamped(folder: Path) -> list[int]:
    """The sizes for which there is a token."""
    return sorted(int(path.stem) for path in folder.glob("*.tsr"))
