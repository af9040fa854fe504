"""Files, clips, layouts, degradation and samples: everything between a user's folders and the networks."""
