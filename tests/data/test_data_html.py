"""Visible text of HTML: against the standard library's parser on sound pages, in linear time on broken ones."""

import time
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritwise.config.data_rules import FilterSettings
from tritwise.data.rules.filters import broken_rule
from tritwise.data.rules.html import visible_text


class Oracle(HTMLParser):
    """Collects the text that is in no script, style or head."""

    def __init__(self, page: str):
        super().__init__()
        self.depth, self.text = 0, ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.depth += tag in ("script", "style", "head")

    def handle_endtag(self, tag):
        self.depth -= tag in ("script", "style", "head")

    def handle_data(self, data):
        if not self.depth:
            self.text += data


pieces = st.recursive(
    st.sampled_from(["word ", "a &lt; b ", "&amp;", "<br>", "<img alt='a > b'>", "<!-- <p>no</p> -->",
                     "<script>if (a<b) x = \"</p>\";</script>", "<style>p > a { color: red }</style>", "\n\n"]),
    lambda inner: st.lists(inner, max_size=4).map(lambda parts: '<div class="x">' + "".join(parts) + "</div >"))


@given(st.lists(pieces, max_size=6))
def test_sound_pages_show_what_the_standard_parser_collects(parts):
    page = "<!DOCTYPE html><html><head><title>t</title></head><body>" + "".join(parts) + "</body></html>"
    assert visible_text(page) == " ".join(Oracle(page).text.split())


@pytest.mark.parametrize(("page", "text"), [
    ("one <b>two", "one two"), ("one <!-- two", "one"), ("one <b title='two> three", "one"),
    ("<head><title>t</title><body>one", "one"), ("1 < 2", "1 < 2"), ("<script>a", ""), ("", ""),
    ("<SCRIPT>a</Script >b", "b"), ("<scripted>a", "a"),
])
def test_what_is_not_closed_reaches_to_the_end(page, text):
    assert visible_text(page) == text


@pytest.mark.parametrize("piece", ["<!--", "<", "<a", "<a b='", "<a b=\"'", "</", "<!", "<script>", "<?", "&#x",
                                   "<noscript>", "<head>", "<b>", "</script "])
def test_broken_pages_take_linear_time(piece):
    start = time.process_time()
    visible_text(piece * (300_000 // len(piece)))
    assert time.process_time() - start < 1  # html.parser takes minutes for a million characters of some of these


def test_html_is_kept_with_100_characters_and_a_fifth_of_the_page_to_read():
    settings = FilterSettings()

    def rule(page: str) -> str | None:
        broken = broken_rule(page, "html", settings)
        return None if broken is None else broken.rule

    text = "a word, " * 12 + "end"  # 99 characters
    assert [rule(f"<p>{text}{n}</p>\n<br>\n") for n in ("", ".")] == ["visible_text", None]
    assert [rule(f"<p>{text}.</p>\n" + "<hr>\n" * n) for n in (78, 79)] == [None, "visible_text"]
    assert broken_rule(f"<p>{text}</p>\n\n\n", "html", settings).detail == "99 of 109 characters"
