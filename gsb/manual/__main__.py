"""``python -m gsb.manual [ROOT]``: renew the generated parts of every manual in a source tree, here unless stated."""

from __future__ import annotations

import sys
from pathlib import Path

from gsb.manual.pages import renew


def main() -> None:
    for name in renew(Path(sys.argv[1] if len(sys.argv) > 1 else ".")):
        print(f"renewed {name}")


if __name__ == "__main__":
    main()
