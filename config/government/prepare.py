"""Makes the private keys of this deployment, and the databases of its personnel and of its social insurance fund, which
no program of their own lays; ``make systems`` does it too. It starts nothing.

Every agency has a key, since each calls some service of another. What is there stays as it is.

    python config/government/prepare.py
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that it also runs as a plain file

from config import material
from config.government.play import insurance, personnel
from config.material import Made

CONFIG = Path(__file__).parent
DATA = Path("var") / "government"
"""What the bus writes, below the folder that holds ``config``."""
PERSONNEL = Path("var") / "systems" / "hrmis" / "personnel.sqlite"
INSURANCE = Path("var") / "systems" / "social-insurance" / "insurance.sqlite"
"""As their systems' tables have it."""
STAFF = 200
"""Civil servants in the first, unless there are some already."""


def prepare(folder: Path = CONFIG) -> list[Made]:
    """Make what is missing, for this deployment or the copy of it in ``folder``. Raises OSError or sqlite3.Error."""
    root = folder.parents[1]
    (root / DATA).mkdir(parents=True, exist_ok=True)
    databases = [Made(path.name, new=not (root / path).exists()) for path in (PERSONNEL, INSURANCE)]
    if databases[0].new:
        personnel.build(root / PERSONNEL, personnel.people(STAFF))
    insurance.build(root / INSURANCE)
    agencies = {path.stem: "ES256" for path in sorted((folder / "agencies").glob("*.toml"))}
    operators = {path.stem: "ES256" for path in sorted((folder / "operators").glob("*.toml"))}
    keys = material.keys(folder / "keys", {"bus": "ES256", "log": "Ed25519", **agencies, **operators})
    return [*keys, *databases]


if __name__ == "__main__":
    for each in prepare():
        print(f"{'made' if each.new else 'kept'}  {each.name}")
