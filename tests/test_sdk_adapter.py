"""What an integrator builds on: secrets, settings and the parts of an adapter that need not be written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gsb.sdk import Adapter, DeploymentFile, Reply, Request, SecretFile, Settings, Unavailable
from tests.support.adapters import opened, request


class Keyed(Settings):
    key: SecretFile


class Described(Settings):
    description: DeploymentFile


class Least(Adapter[Any, Any]):
    """The least that an adapter is."""

    async def handle(self, request: Request) -> Reply:
        return Reply(request.body)


def test_a_secret_starts_at_the_deployments_folder_and_is_read_at_each_use(tmp_path: Path) -> None:
    (tmp_path / "key.txt").write_text("first\r\n")
    settings = Keyed.model_validate({"key": "key.txt"}, context={"folder": tmp_path})
    assert settings.key.read() == "first"
    (tmp_path / "key.txt").write_text("  second  ")
    assert settings.key.read() == "  second  "


def test_a_secret_that_cannot_be_read_any_more_is_unavailable_and_nothing_was_sent(tmp_path: Path) -> None:
    (tmp_path / "key.txt").write_text("first")
    key = Keyed.model_validate({"key": "key.txt"}, context={"folder": tmp_path}).key
    (tmp_path / "key.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(Unavailable) as raised:
        key.read()
    assert raised.value.sent is False
    (tmp_path / "key.txt").unlink()
    with pytest.raises(Unavailable) as raised:
        key.read()
    assert raised.value.sent is False


def test_a_secret_never_shows(tmp_path: Path) -> None:
    (tmp_path / "key.txt").write_text("sesame")
    settings = Keyed.model_validate({"key": str(tmp_path / "key.txt")})
    assert "sesame" not in f"{settings} {settings!r} {settings.key}"


@pytest.mark.parametrize("value", ["none.txt", "", ".", 7, None], ids=repr)
def test_a_secret_that_is_no_file_is_an_error_of_the_configuration(tmp_path: Path, value: object) -> None:
    with pytest.raises(ValidationError):
        Keyed.model_validate({"key": value}, context={"folder": tmp_path})


def test_a_file_starts_at_the_deployments_folder_and_is_there(tmp_path: Path) -> None:
    (tmp_path / "service.wsdl").write_text("x")
    for path in ("service.wsdl", str(tmp_path / "service.wsdl")):
        found = Described.model_validate({"description": path}, context={"folder": tmp_path}).description
        assert found == tmp_path / "service.wsdl"
    for wrong in ("none.wsdl", "", ".", 7):
        with pytest.raises(ValidationError):
            Described.model_validate({"description": wrong}, context={"folder": tmp_path})


def test_settings_are_closed_and_frozen(tmp_path: Path) -> None:
    (tmp_path / "key.txt").write_text("x")
    with pytest.raises(ValidationError, match="Extra"):
        Keyed.model_validate({"key": str(tmp_path / "key.txt"), "kye": 1})
    settings: Any = Keyed.model_validate({"key": str(tmp_path / "key.txt")})
    with pytest.raises(ValidationError, match="frozen"):
        settings.key = None


async def test_only_handle_has_to_be_written() -> None:
    async with opened(Least, {}, {"a/b/v1": {}}) as adapter:
        await adapter.check()
        asked = request("a/b/v1", {"x": 1})
        assert (await adapter.handle(asked)).body == {"x": 1}
        assert await adapter.find(asked) is None, "which proves nothing"


async def test_an_adapter_without_settings_takes_none() -> None:
    with pytest.raises(ValidationError, match="Extra"):
        async with opened(Least, {"url": "http://x"}, {}):
            pass


def test_handle_must_be_written() -> None:
    class Nothing(Adapter[Any, Any]):
        pass

    with pytest.raises(TypeError, match="handle"):
        Nothing(None)  # type: ignore[abstract, arg-type]
