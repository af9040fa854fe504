from engine.report.page.document import render_page

__all__ = ["render_page"]
