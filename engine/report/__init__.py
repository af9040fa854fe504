"""Reports: tables, JSON, CSV, Markdown and the HTML page; provenance and cost of a network."""

from engine.report.files import console_table, write_report

__all__ = ["console_table", "write_report"]
