"""The connection URI: what it must say, and that nothing of it is ever repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from gsb.dsn import DsnUnfit, read_dsn

SECRET = "hunter2"


def read(tmp_path: Path, content: bytes) -> str:
    (tmp_path / "dsn").write_bytes(content)
    return read_dsn(tmp_path / "dsn")


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://bus@/gsb?host=/run/postgresql",
        "postgres://bus@/gsb",
        "postgresql://bus:hunter2@127.0.0.1:5432/gsb",
        "postgresql://bus@[::1]:5432/gsb",
        "postgresql://bus@localhost,127.0.0.1:5433/gsb",
        "postgresql://bus@%2Frun%2Fpostgresql/gsb",
        "postgresql://bus:hunter2@db.example.org/gsb?sslmode=verify-full&sslrootcert=/etc/ca.pem",
        "postgresql://bus:hunter2@one.example.org:5432,two.example.org:5432/gsb?sslmode=verify-full",
        "postgresql://bus@db.example.org/gsb?sslmode=disable",
    ],
)
def test_a_uri_is_read_as_it_stands(tmp_path: Path, dsn: str) -> None:
    assert read(tmp_path, f"{dsn}\n".encode()) == dsn


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "one line with a URI"),
        (b"mysql://bus:hunter2@localhost/gsb", "one line with a URI"),
        (b"host=localhost password=hunter2", "one line with a URI"),
        (b"postgresql://bus:hunter2@localhost/gsb\npostgresql://bus:hunter2@localhost/gsb", "one line with a URI"),
        (b"postgresql://bus:hunter2@[localhost/gsb", "one line with a URI"),
        (b"\xffhunter2", "one line with a URI"),
        (b"postgresql://bus:hunter2@db.example.org/gsb", "names another machine"),
        (b"postgresql://bus:hunter2@db.example.org/gsb?sslmode=require", "names another machine"),
        (b"postgresql://bus:hunter2@localhost,db.example.org/gsb", "names another machine"),
        (b"postgresql://bus:hunter2@localhost/gsb?host=db.example.org", "names another machine"),
        (b"postgresql://bus:hunter2@10.0.0.1:5432/gsb?sslmode=disable&sslmode=prefer", "names another machine"),
    ],
)
def test_what_is_none_or_could_be_listened_to_is_refused_without_repeating_it(
    tmp_path: Path, content: bytes, why: str
) -> None:
    with pytest.raises(DsnUnfit, match=why) as refused:
        read(tmp_path, content)
    assert SECRET not in str(refused.value)
    assert "example" not in str(refused.value)


def test_a_file_that_cannot_be_read_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(DsnUnfit, match="cannot be read: No such file or directory"):
        read_dsn(tmp_path / "nothing")
