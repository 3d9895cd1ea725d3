"""A vehicle register in SOAP 1.1 with WS-Security, on Apache CXF and WSS4J: in Java, of which only a runtime is needed.

Maven fetches the jars, and the runtime's own compiler the register's one file. It keeps its registrations in its
folder; a crash loses none that was answered.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import shutil
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

from config.systems.base import Command, NotStarted, Place, System, run
from config.systems.openfisca import answers

HERE = Path(__file__).parent
USER = "gsb"
MEMORY = ("-Xms32m", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
WSS = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss"
QUESTION = """\
<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Header>
<w:Security xmlns:w="{wss}-wssecurity-secext-1.0.xsd"><w:UsernameToken><w:Username>{user}</w:Username>
<w:Password Type="{wss}-username-token-profile-1.0#PasswordDigest">{digest}</w:Password>
<w:Nonce EncodingType="{wss}-soap-message-security-1.0#Base64Binary">{nonce}</w:Nonce>
<u:Created xmlns:u="{wss}-wssecurity-utility-1.0.xsd">{created}</u:Created></w:UsernameToken></w:Security></e:Header>
<e:Body><v:lookUp xmlns:v="urn:transport:vehicle-register:1"><plate>AB-0002</plate></v:lookUp></e:Body></e:Envelope>
"""


class Soap(System):
    """The register, with three vehicles and one user, whose password also stands in ``password.txt`` of its folder."""

    name = "soap"
    title = "Apache CXF, vehicle register"
    port = 8095

    def missing(self) -> str | None:
        java = None if shutil.which("java") else "Java 17 is not installed (Debian: openjdk-17-jre-headless)"
        return super().missing() or java

    def build(self, folder: Path) -> None:
        jars = folder / "jars"
        fetch = ("dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={jars}")
        run(self, ["mvn", "--quiet", "--batch-mode", "-Dstyle.color=never", "--file", HERE / "pom.xml", *fetch])
        path = ":".join(str(jar) for jar in sorted(jars.glob("*.jar")))
        compiler = ("java", "-m", "jdk.compiler/com.sun.tools.javac.Main", "-Xlint:all,-processing,-serial", "-Werror")
        run(self, [*compiler, "-cp", path, "-d", folder / "classes", HERE / "VehicleRegister.java"])

    def lay(self, place: Place) -> None:
        shutil.copyfile(HERE / "vehicles.tsv", place.folder / "vehicles.tsv")
        password = secrets.token_urlsafe(16)
        for name, content in (("users.txt", f"{USER} {password}\n"), ("password.txt", f"{password}\n")):
            (place.folder / name).write_text(content, "utf-8")
            (place.folder / name).chmod(0o600)

    def command(self, place: Place) -> Command:
        logging = f"-Djava.util.logging.config.file={HERE / 'logging.properties'}"
        path = f"{self.golden}/jars/*:{self.golden}/classes"
        return ["java", *MEMORY, logging, "-cp", path, "VehicleRegister", str(place.port), place.folder]

    async def ready(self, place: Place) -> bool:
        return await answers(f"{place.url}/vehicles?wsdl")

    async def check(self, place: Place) -> str:
        headers = {"Content-Type": "text/xml; charset=utf-8", "SOAPAction": '""'}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.post(f"{place.url}/vehicles", data=_question(place)) as answer,
        ):
            text = await answer.text()
        if answer.status != 200:
            raise NotStarted(f"{self.title} answers a look-up with {answer.status}")
        return f"annual fee of AB-0002: {text.partition('<annualFee>')[2].partition('<')[0]}"


def _question(place: Place) -> str:
    """A look-up as a client other than the bus's would write it (WS-Security UsernameToken Profile 1.1)."""
    nonce, created = secrets.token_bytes(16), datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    password = (place.folder / "password.txt").read_text("utf-8").strip()
    digest = hashlib.sha1(nonce + created.encode() + password.encode(), usedforsecurity=False).digest()
    told = {"digest": base64.b64encode(digest).decode(), "nonce": base64.b64encode(nonce).decode()}
    return QUESTION.format(wss=WSS, user=USER, created=created, **told)


SYSTEM = Soap()
