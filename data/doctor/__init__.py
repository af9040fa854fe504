"""Find faults in a data set: `examine` returns a diagnosis and `python -m data.doctor ROOT` prints it (docs/doctor.md)."""

from data.doctor.examine import examine, examine_clip
from data.doctor.findings import ClipReport, Diagnosis, Finding

__all__ = ["ClipReport", "Diagnosis", "Finding", "examine", "examine_clip"]
