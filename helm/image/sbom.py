"""Writes what an image consists of as CycloneDX 1.6: every Debian package and every Python distribution that is in it.

    python -I sbom.py FILE

It runs in the image, on its interpreter and the standard library alone, and lists what it finds installed there and not
what somebody meant to install. The same image gives the same bytes: the time is that of SOURCE_DATE_EPOCH. It fetches
nothing and judges nothing. A crash ends the build.
"""

from __future__ import annotations

import json
import os
import re
import sys
import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from email.message import Message
from email.parser import Parser
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

ITSELF = "gsb"
"""It stands in no package index, and what stands there under its name one day would be another program."""
DEBIAN = Path("/var/lib/dpkg/status.d")
Component = dict[str, Any]
"""One member of ``components``; the specification is the JSON schema of CycloneDX 1.6."""


def normal(name: str) -> str:
    """A distribution's name as package URLs have it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def licences(found: Distribution) -> list[dict[str, Any]]:
    """As an SPDX expression where the distribution states one, or by the names that it gives instead."""
    if expression := found.metadata.get_all("License-Expression"):
        return [{"expression": expression[0]}]
    stated = [text.strip().splitlines()[0] for text in found.metadata.get_all("License") or [] if text.strip()]
    classified = [each for each in found.metadata.get_all("Classifier") or [] if each.startswith("License ::")]
    return [{"license": {"name": name}} for name in [each.rpartition(" :: ")[2] for each in classified] or stated]


def python_component(found: Distribution) -> Component:
    name, version = normal(found.metadata["Name"]), found.version
    purl = f"pkg:generic/{name}@{version}" if name == ITSELF else f"pkg:pypi/{name}@{version}"
    inside = sorted(
        str(each) for each in found.files or () if ".dist-info/sboms/" in str(each) and each.suffix == ".json"
    )
    return {
        "type": "application" if name == ITSELF else "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "licenses": licences(found),
        "purl": purl,
        # What was compiled into a wheel is listed in a bill of its own, beside the wheel's metadata.
        "externalReferences": [{"type": "bom", "url": quote(str(found.locate_file(each)))} for each in inside],
    }


def debian_component(package: Message, release: str) -> Component:
    name, version, architecture = (package[field] for field in ("Package", "Version", "Architecture"))
    source, _, source_version = (package.get("Source") or name).replace("(", "").replace(")", "").partition(" ")
    upstream = f"{source}@{source_version}" if source_version else source
    purl = f"pkg:deb/debian/{quote(name, safe='')}@{quote(version, safe='')}?arch={architecture}&distro={release}"
    if upstream != name:
        purl += f"&upstream={quote(upstream, safe='')}"
    return {
        "type": "library",
        "bom-ref": f"pkg:deb/debian/{quote(name, safe='')}",
        "name": name,
        "version": version,
        "supplier": {"name": package["Maintainer"]},
        "purl": purl,
    }


def names(required: Iterable[str]) -> Iterator[str]:
    """The distributions or packages that requirements name, without versions and conditions."""
    for each in required:
        if match := re.match(r"\s*([A-Za-z0-9][A-Za-z0-9._+-]*)", each):
            yield match[1]


def dependencies(required: dict[str, list[str]], known: dict[str, str]) -> list[dict[str, Any]]:
    """Who needs whom, of what is there: an optional requirement counts where it is installed."""
    return [
        {"ref": ref, "dependsOn": sorted({known[name] for name in wanted if name in known} - {ref})}
        for ref, wanted in sorted(required.items())
    ]


def debian() -> tuple[list[Component], list[dict[str, Any]]]:
    """Every package of the image's root, and what each needs of the others."""
    facts = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text("utf-8").splitlines() if "=" in line)
    release = f"{facts['ID']}-{facts['VERSION_ID'].strip(chr(34))}"
    packages = [Parser().parsestr(path.read_text("utf-8")) for path in sorted(DEBIAN.iterdir())]
    components = [debian_component(each, release) for each in packages]
    known = {each["name"]: each["bom-ref"] for each in components}
    required = {known[each["Package"]]: list(names(re.split(r"[,|]", each.get("Depends") or ""))) for each in packages}
    return components, dependencies(required, known)


def python() -> tuple[list[Component], list[dict[str, Any]]]:
    """Every distribution that the image's interpreter finds, and what each needs of the others."""
    found = sorted(distributions(), key=lambda each: normal(each.metadata["Name"]))
    components = [python_component(each) for each in found]
    known = {each["name"]: each["bom-ref"] for each in components}
    required = {
        known[normal(each.metadata["Name"])]: [normal(name) for name in names(each.requires or ())] for each in found
    }
    return components, dependencies(required, known)


def bill() -> dict[str, Any]:
    """The whole document; its serial number is made of its content."""
    version = distribution(ITSELF).version
    made = datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), UTC)
    system, of_system = debian()
    library, of_library = python()
    content = {
        "metadata": {
            "timestamp": made.isoformat(),
            "component": {"type": "container", "bom-ref": "image", "name": ITSELF, "version": version},
        },
        "components": [*system, *library],
        "dependencies": [
            {"ref": "image", "dependsOn": sorted(each["bom-ref"] for each in (*system, *library))},
            *of_system,
            *of_library,
        ],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(content, sort_keys=True))
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "serialNumber": serial.urn, "version": 1} | content


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(bill(), indent=1, ensure_ascii=False) + "\n", "utf-8")
