"""Is a data set what it should be? `examine` looks, `python -m data.doctor ROOT` prints; see docs/doctor.md."""

from data.doctor.examine import examine, examine_clip
from data.doctor.findings import ClipReport, Diagnosis, Finding

__all__ = ["ClipReport", "Diagnosis", "Finding", "examine", "examine_clip"]
