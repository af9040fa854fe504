"""Restore a clip with a network: jobs, tiles, precision, worker threads and bounded memory."""

from engine.restore.memory import frames_at_once
from engine.restore.options import DEFAULT, Options
from engine.restore.pipeline import restore

__all__ = ["DEFAULT", "Options", "frames_at_once", "restore"]
