"""What an integrator tests an adapter with. Its tests import it; its code does not."""

from gsb.testing.contract import RULES, AdapterContract, Rule, Verdict, grade
from gsb.testing.subject import Subject, Unfit, find_subject

__all__ = ["RULES", "AdapterContract", "Rule", "Subject", "Unfit", "Verdict", "find_subject", "grade"]
