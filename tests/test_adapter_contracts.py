"""The adapters that come with the bus keep the contract that every adapter keeps."""

from __future__ import annotations

from gsb.testing import AdapterContract


class TestCustoms(AdapterContract):
    adapter = "customs"


class TestFmis(AdapterContract):
    adapter = "fmis"


class TestHrmis(AdapterContract):
    adapter = "hrmis"


class TestFeedback(AdapterContract):
    adapter = "feedback"


class TestHttpJson(AdapterContract):
    adapter = "http_json"


class TestOidc(AdapterContract):
    adapter = "oidc"


class TestProcurement(AdapterContract):
    adapter = "procurement"


class TestRegistry(AdapterContract):
    adapter = "registry"


class TestSoap(AdapterContract):
    adapter = "soap"


class TestSql(AdapterContract):
    adapter = "sql"


class TestTax(AdapterContract):
    adapter = "tax"


class TestTreasury(AdapterContract):
    adapter = "treasury"
