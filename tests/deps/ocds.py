"""Makes ``.deps/ocds/standard.zip``: the schemas of the Open Contracting Data Standard 1.1.5 for checks without a net.

Run by the Python of ``.deps/ocds``. The standard itself is in no package index, but the sources of two of its own tools
carry its schemas among their test data; the one for record packages is there with everything it refers to written out,
which is undone. The codelists are those that the schema itself closes; open ones are not there. A crash leaves no zip.
"""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonref

FOLDER = Path(__file__).parents[2] / ".deps" / "ocds"
BASE = "https://standard.open-contracting.org/schema/1__1__5/"
REGISTRY, KIT = "ocdsextensionregistry==0.7.0", "ocdskit==1.7.0"
FILES = {
    "release-schema.json": (REGISTRY, "tests/fixtures/release-schema.json"),
    "versioned-release-validation-schema.json": (REGISTRY, "tests/fixtures/versioned-release-validation-schema.json"),
    "release-package-schema.json": (KIT, "tests/fixtures/release-package-schema.json"),
    "record-package-schema.json": (KIT, "tests/fixtures/a/record-package-schema-dereferenced.json"),
}


def main() -> None:
    """Raises CalledProcessError when the package index cannot be reached."""
    with tempfile.TemporaryDirectory() as folder:
        schemas = {name: _read(Path(folder), *source) for name, source in FILES.items()}
    for name, schema in schemas.items():
        if schema["id"] != BASE + name:
            raise SystemExit(f"{name} is not that of OCDS 1.1.5 but {schema['id']}")
    versioned = schemas["versioned-release-validation-schema.json"]
    _refer(schemas["record-package-schema.json"], jsonref.replace_refs(versioned, proxies=False))
    unfinished = FOLDER / "standard.new"
    with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("standard/", "")  # the checker takes the first name for the folder of everything else
        for name, schema in schemas.items():
            archive.writestr(f"standard/schema/{name}", json.dumps(schema))
        for name, codes in dict(_codelists(schemas["release-schema.json"])).items():
            table = io.StringIO()
            csv.writer(table).writerows([["Code"], *([code] for code in codes)])
            archive.writestr(f"standard/schema/codelists/{name}", table.getvalue())
    unfinished.rename(FOLDER / "standard.zip")


def _read(folder: Path, package: str, path: str) -> Any:
    name = package.partition("==")[0]
    if not list(folder.glob(f"{name}-*.tar.gz")):
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "download", "--no-deps", "--no-binary", name, "--dest", folder, package], check=True)
    (archive,) = folder.glob(f"{name}-*.tar.gz")
    with tarfile.open(archive) as sources:
        file = sources.extractfile(f"{package.replace('==', '-')}/{path}")
        if file is None:
            raise SystemExit(f"{package} has no {path}")
        return json.load(file)


def _refer(package: dict[str, Any], versioned: Any) -> None:
    """Let a record refer to the release schema again, as the checker expects. The versioned one is written out, since
    the checker would fetch that.
    """
    record = package["properties"]["records"]["items"]
    release = {"$ref": f"{BASE}release-schema.json"}
    record["properties"]["compiledRelease"] = release
    record["properties"]["releases"]["oneOf"][1]["items"] = release
    record["properties"]["versionedRelease"] = versioned
    package["definitions"] = {"record": record}
    package["properties"]["records"]["items"] = {"$ref": "#/definitions/record"}


def _codelists(schema: Any) -> Iterator[tuple[str, list[str]]]:
    """Every codelist whose codes stand in the schema."""
    for value in schema.values() if isinstance(schema, dict) else schema:
        if isinstance(value, Mapping) and isinstance(value.get("codelist"), str):
            codes = value.get("enum") or value.get("items", {}).get("enum")
            if codes:
                yield value["codelist"], [code for code in codes if code is not None]
        if isinstance(value, (dict, list)):
            yield from _codelists(value)


if __name__ == "__main__":
    main()
