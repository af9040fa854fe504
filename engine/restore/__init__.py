"""Restore a clip with a network: jobs, tiles, precision, worker threads and bounded memory."""

from engine.restore.pipeline import Options, frames_at_once, restore

__all__ = ["Options", "frames_at_once", "restore"]
