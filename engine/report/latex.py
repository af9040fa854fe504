"""Tables as LaTeX with the package booktabs, for papers."""

from __future__ import annotations

from engine.report.tables import MISSING, Table

SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "−": "$-$",
    MISSING: "--",
}


def escaped(text: str) -> str:
    """Escape LaTeX's special characters; letters that pdfLaTeX cannot typeset become `?`."""
    safe = "".join(character if character.isprintable() else " " for character in text)
    return "".join(SPECIAL.get(character, character if ord(character) < 0x180 else "?") for character in safe)


def number(text: str) -> str:
    """A cell of numbers: a leading hyphen becomes a minus sign."""
    return f"${text}$" if text[:1] in "+-" and text[1:].replace(".", "").isdigit() else escaped(text)


def latex_table(table: Table) -> str:
    r"""A `table` environment; needs `\usepackage{booktabs}` and `\usepackage[T1]{fontenc}`."""
    columns = "l" * table.names + "r" * (len(table.headings) - table.names)
    headings = [" ".join(filter(None, heading)) for heading in table.headings]
    caption = f"{escaped(table.title)}. {escaped(table.note)}".strip()
    lines = [
        r"\begin{table}",
        r"\centering\small\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{caption}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(map(escaped, headings)) + r" \\",
        r"\midrule",
    ]
    first_total = len(table.rows) - table.totals if table.totals else None
    for index, row in enumerate(table.rows):
        if index and (index in table.groups or index == first_total):
            lines.append(r"\midrule")
        lines.append(" & ".join(_cell(table, index, column, text) for column, text in enumerate(row)) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def _cell(table: Table, row: int, column: int, text: str) -> str:
    cell = escaped(text) if column < table.names else number(text)
    return rf"\textbf{{{cell}}}" if (row, column) in table.best else cell


def document(tables: list[Table], preamble: str = "") -> str:
    """All tables as one LaTeX file to include, with required packages and sources as comments."""
    head = r"% \usepackage{booktabs}  \usepackage[T1]{fontenc}"
    comments = "\n".join(f"% {' '.join(line.split())}" for line in preamble.splitlines())
    return "\n".join(filter(None, [head, comments, *map(latex_table, tables)]))
