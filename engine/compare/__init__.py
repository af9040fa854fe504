"""Compare frames that several methods made: find them, measure them, and write tables, figures and a page."""

from engine.compare.run import compare

__all__ = ["compare"]
