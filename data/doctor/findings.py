"""Findings of the doctor."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

FAULT, WARNING, NOTE = "fault", "warning", "note"
SHOWN = 6


@dataclass(frozen=True)
class Finding:
    """One finding. kind: its identifier (docs/doctor.md); frames: names of the affected frames, empty for all of the clip."""

    severity: str
    kind: str
    clip: str
    message: str
    frames: tuple[str, ...] = ()

    def line(self) -> str:
        """The finding as one line of the report."""
        shown = ", ".join(self.frames[:SHOWN]) + (
            f", ... ({len(self.frames)} in all)" if len(self.frames) > SHOWN else ""
        )
        where = self.clip + (f" [{shown}]" if shown else "")
        return f"{self.severity.upper():7s} {self.kind:16s} {where}: {self.message}"


@dataclass
class ClipReport:
    """Facts and findings of one clip; sizes are (H, W), None if nothing could be read."""

    name: str
    frames: int = 0
    size: tuple[int, int] | None = None
    bits: int | None = None
    fps: float | None = None
    lr_frames: int | None = None
    lr_size: tuple[int, int] | None = None
    boxes: int | None = None
    findings: list[Finding] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)  # hash of the content -> frame name, of the decoded frames

    def add(self, severity: str, kind: str, message: str, frames: tuple[str, ...] | list[str] = ()) -> None:
        self.findings.append(Finding(severity, kind, self.name, " ".join(message.split()), tuple(frames)))


@dataclass
class Diagnosis:
    """Facts and findings of a data set."""

    root: str
    kind: str
    reason: str
    full: bool
    clips: list[ClipReport]
    findings: list[Finding]  # of single clips, and across clips

    def count(self, severity: str) -> int:
        return sum(finding.severity == severity for finding in self.findings)

    def plain(self) -> dict[str, Any]:
        """Convert to a JSON-compatible dict."""
        clips = []
        for clip in self.clips:
            plain = asdict(clip)
            del plain["findings"], plain["digests"]
            clips.append(plain)
        counts = {f"{severity}s": self.count(severity) for severity in (FAULT, WARNING, NOTE)}
        findings = [asdict(finding) for finding in self.findings]
        head = {"root": self.root, "kind": self.kind, "reason": self.reason, "full": self.full}
        return {**head, "counts": counts, "clips": clips, "findings": findings}
