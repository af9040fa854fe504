"""Files, clips, layouts, degradation and samples: everything between a user's folders and the networks."""

from data.layouts import Layout, Pair, open_layout

__all__ = ["Layout", "Pair", "open_layout"]
