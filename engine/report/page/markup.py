"""Markup from Python, escaped by construction: `element("td", name, _class="wide")`."""

from __future__ import annotations

from html import escape
from typing import Any

VOID = frozenset(("img", "input", "br", "hr", "meta", "col"))


class Markup(str):
    """Text that is already markup and is not escaped again."""

    __slots__ = ()


Child = Any  # Markup, text, a number, None, or an iterable of such


def element(name: str, /, *children: Child, **attributes: Any) -> Markup:
    """One element. In attribute names, leading underscores are removed and inner ones become dashes; None and False omit an attribute."""
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.lstrip("_").replace("_", "-")
        words.append(key if value is True else f'{key}="{escape(str(value), quote=True)}"')
    head = "<" + " ".join(words) + ">"
    return Markup(head if name in VOID else f"{head}{together(children)}</{name}>")


def together(children: Child) -> Markup:
    """Children side by side; plain text is escaped."""
    if children is None:
        return Markup("")
    if isinstance(children, Markup):
        return children
    if isinstance(children, (str, int, float)):
        return Markup(escape(str(children), quote=False))
    return Markup("".join(together(child) for child in children))
