"""Text of any origin stays text, in a line, a cell and a block."""

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from judicaita.training.markdown import block, cell, inline

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
SIGNS = st.text(alphabet="ab |\\`*_[]()<>&~!#\n$:/@.", max_size=12)


@given(SIGNS)
def test_a_cell_is_one_cell(text):
    page = f"| x | y |\n| --- | --- |\n| {cell(text)} | end |\n"
    cells = [token for token in MARKDOWN.parse(page) if token.type == "inline"]
    assert len(cells) == 4
    assert cells[3].content == "end"


def test_by_hand():
    assert inline("a *b*\n<i>") == r"a \*b\* \<i>"
    assert cell("a|b") == r"a\|b"
    assert block("```\nx") == "````text\n```\nx\n````"
