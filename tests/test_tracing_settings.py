"""The table ``tracing``: what of it is wrong, what a running node keeps of it, and whom it trusts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gsb import otel
from gsb.backends import TracingTable
from gsb.catalogue import build
from gsb.load import ConfigInvalid
from gsb.reload import needs_restart
from tests.support.deployment import standard


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"endpoint": "http://collector:4318"}, 'endpoint must be https, or tls = "upstream" where the way is safe'),
        ({"endpoint": "https://collector:4318/"}, "a base URL has no user, query, fragment or slash at its end"),
        ({"endpoint": "https://collector", "ca": "none.pem"}, "there is no file none.pem"),
        ({"endpoint": "https://collector", "ratio": 2}, "less than or equal to 1"),
        ({"endpoint": "https://collector", "header": "x"}, "tracing.header"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, table: dict[str, Any], said: str) -> None:
    deployment = standard(tmp_path)
    deployment.gsb["tracing"] = table
    with pytest.raises(ConfigInvalid) as raised:
        build(deployment.write())
    assert said in "\n".join(map(str, raised.value.findings))


def test_what_is_right_is_taken(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    for table in ({"endpoint": "http://collector:4318", "tls": "upstream"}, {"endpoint": "https://collector/otlp"}):
        deployment.gsb["tracing"] = table
        assert build(deployment.write()).gsb.tracing is not None


def test_a_running_node_keeps_its_collector(tmp_path: Path) -> None:
    without = build(standard(tmp_path).write()).gsb
    tables = [None, TracingTable(endpoint="https://a"), TracingTable(endpoint="https://b")]
    first, second, third = (without.model_copy(update={"tracing": each}) for each in tables)
    assert list(needs_restart(second, second)) == list(needs_restart(first, first)) == []
    assert {each.where for each in needs_restart(first, second)} >= {"tracing.endpoint"}
    assert [each.where for each in needs_restart(second, third)] == ["tracing.endpoint"]


def test_the_authority_is_the_configured_one_or_the_machine_s(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    assert otel._authorities(TracingTable(endpoint="https://x", ca=ca)) == str(ca)
    machine = otel._authorities(TracingTable(endpoint="https://x"))
    assert machine is None or Path(machine).exists()
