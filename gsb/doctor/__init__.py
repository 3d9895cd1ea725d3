"""What ails a deployment, and what to do about it. It changes nothing; a crash means nothing."""

from gsb.doctor.bundle import write_bundle
from gsb.doctor.examine import examine
from gsb.doctor.found import Found, Grade

__all__ = ["Found", "Grade", "examine", "write_bundle"]
