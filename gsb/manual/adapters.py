"""The contract's rules as a table, made from the rules themselves: what each asks, and why."""

from __future__ import annotations

from gsb.manual.markdown import table, text
from gsb.testing import RULES


def rules_table() -> str:
    """Every rule with what it asks and its reason."""
    rows = [(f"`{rule.name}`", rule.title, text(rule.check.__doc__ or "")) for rule in RULES]
    return table(("rule", "what it asks", "why"), rows)
