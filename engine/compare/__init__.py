"""Compare frames that several methods made: find them, measure them, and write tables, figures and a page."""
