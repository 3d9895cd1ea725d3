"""Writes a deployment's folder as values of this chart: ``python helm/gsb/deployment.py DIR > files.json``.

Each file stands in them byte for byte, so the bus reads in a pod what ``gsb check DIR`` read here. Only texts of known
kinds are taken, never a private key; what was left out is told, and belongs into Secrets. It needs nothing but Python.
A crash leaves nothing behind.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

TAKEN = {".toml", ".json", ".jwk", ".wsdl", ".xsd", ".pem", ".crt", ".csv"}
"""Endings of what is not a secret by its kind."""


def is_private(text: str) -> bool:
    """Whether it holds a private or a shared key, as PEM or JWK."""
    if "PRIVATE KEY-----" in text:
        return True
    try:
        found = json.loads(text)
    except ValueError:
        return False
    return isinstance(found, dict) and "kty" in found and not {"d", "k"}.isdisjoint(found)


def files(folder: Path) -> Iterator[tuple[str, str]]:
    """Path and content of every file that may be shown, in order."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or any(part[0] == "." for part in path.relative_to(folder).parts):
            continue
        text = path.read_text("utf-8") if path.suffix in TAKEN else None
        if text is None or is_private(text):
            print(f"left out: {name}", file=sys.stderr)
        else:
            yield name, text


def main() -> int:
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "gsb.toml").is_file():
        print("say which folder: deployment.py DIR, in which gsb.toml lies", file=sys.stderr)
        return 2
    print(json.dumps({"config": {"files": dict(files(Path(sys.argv[1])))}}, indent=1, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
