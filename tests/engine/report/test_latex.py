"""LaTeX tables: escaping, rules, bold; compiled if pdflatex is installed."""

import shutil
import subprocess

import pytest

from engine.report.latex import document, escaped, latex_table
from engine.report.tables import Table

NASTY = r"a_b & 50 % $x$ #1 {c} ~ ^ \n <i> | é – ↑ 漢 " + '"q"'


def table() -> Table:
    return Table(
        NASTY,
        [("", "clip"), ("", "method"), ("PSNR", "dB ↑")],
        [["city", NASTY, "30.12"], ["", "ours", "-1.50"], ["mean", "ours", "31.00"]],
        names=2,
        totals=1,
        note="50 %",
        best={(0, 2)},
        groups=[0],
    )


def test_rules_bold_and_signs() -> None:
    text = latex_table(table())
    assert r"\textbf{30.12}" in text and "$-1.50$" in text and text.count(r"\midrule") == 2
    assert "clip & method & PSNR dB $\\uparrow$ \\\\" in text and "{llr}" in text


def test_caption_without_a_note_ends_with_the_title() -> None:
    plain = Table("Comparison", [("", "clip")], [["city"]], names=1)
    assert r"\caption{Comparison.}" in latex_table(plain)
    assert r" 50 \%}" in latex_table(table())


def test_special_characters_are_escaped() -> None:
    assert escaped("a_b&%#{}") == r"a\_b\&\%\#\{\}"
    assert escaped("\\x\n漢–") == r"\textbackslash{}x ?--"


def test_pdflatex_compiles_it(tmp_path) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex here (Debian: apt-get install texlive-latex-recommended)")
    body = document([table(), table()], "from\n% nowhere")
    head = r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage{booktabs}\begin{document}"
    (tmp_path / "paper.tex").write_text(f"{head}\n{body}\n\\end{{document}}\n", encoding="utf-8")
    run = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    result = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=900)
    assert result.returncode == 0, result.stdout[-1500:]
    assert (tmp_path / "paper.pdf").stat().st_size > 1000
