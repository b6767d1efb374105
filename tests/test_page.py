"""Pages: what is in them is escaped, counted and drawn as it should be; and, with chromium, what they are there."""

import json
import math
import re

import pytest
from browser import Tables, opened
from markupsafe import Markup

from fastinit._io.html import bars, heading, lines, page, table
from fastinit._io.series import COLOURS
from fastinit._io.text import printable
from fastinit.stats._histograms import Histogram

HOSTILE = ["</script><script>boom()</script>", "<!-- <b>&amp;", "a\u2028b\x1b[2J\u202e", "\ud800", "'\"`", "ünï/☃"]
EMBEDDED = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)


def embedded(text):
    return json.loads(EMBEDDED.search(text)[1])


@pytest.mark.parametrize("text", HOSTILE)
def test_text_stays_text(text):
    made = page(text, [text, heading(text), table([text], [[text]])], {text: [text]})
    made.encode()  # no lone surrogate
    assert embedded(made) == {text: [text]}
    assert "boom()</script>" not in made.replace("&lt;/script&gt;", "")
    assert "\u2028" not in made
    found = Tables(made)
    assert (found.heads, found.rows) == ([printable(text)], [[printable(text)]])


def test_markup_goes_in_as_it_is():
    assert "<b>x</b>" in page("a", [Markup("<b>x</b>")])
    assert "<b>x</b>" in table(["a"], [[Markup("<b>x</b>")]])


def test_a_page_loads_nothing():
    made = page("a", [table(["a"], [[1]]), lines({"a": [1.0]}, [0], caption="c")], {})
    assert "default-src 'none'" in made
    assert set(re.findall(r'(?:src|href)="?([^" >]*)', made)) == {"data:,"}
    assert "http" not in made.replace('http-equiv="Content-Security-Policy"', "")


def test_data_is_strict_json():
    with pytest.raises(ValueError, match="not JSON compliant"):
        page("a", [], {"a": math.nan})
    assert EMBEDDED.search(page("a", [])) is None


def test_numbers_are_kept_whole_and_shown_short():
    numbers = [1234567, 0.123456789012345, -1e-300, 0.0, 5e-324, 2**53]
    made = table(["name", "number"], [["a", number] for number in numbers])
    assert [row[1] for row in Tables(made).rows] == numbers
    assert "0.1235" in made
    assert "1,234,567" in made
    assert made.count("class=n") == len(numbers) + 1  # the heading stands on the right too


def test_names_break_after_their_joints():
    made = table(["name", "text"], [["model.up_proj/w<.x", "a.b_c"]])
    assert "<td>model.<wbr>up_<wbr>proj/<wbr>w&lt;.<wbr>x" in made
    assert "<td>a.b_c" in made
    assert Tables(made).rows == [["model.up_proj/w<.x", "a.b_c"]]


def test_cells_that_are_no_numbers():
    made = table(["a", "b", "c", "d"], [[None, math.nan, -math.inf, True]])
    assert Tables(made).rows == [["", "nan", "-inf", "True"]]
    assert "data-v" not in made
    assert Tables(table(["a"], [])).rows == []
    with pytest.raises(ValueError, match=r"a cell for each of 2 columns\. Received: 1"):
        table(["a", "b"], [["x", "y"], ["x"]])


def heights(picture):
    """The heights of the bars of a picture, from its path."""
    height = int(re.search(r'viewBox="0 0 \d+ (\d+)"', picture)[1])
    found, top = [], height
    for kind, number in re.findall(r"([hV])(\d+)", picture.partition(' d="')[2]):
        if kind == "V":
            top = int(number)
        else:
            found += [height - top] * int(number)
    return found


@pytest.mark.parametrize("counts", [(0,), (5,), (0, 4, 1), (4, 4, 0, 0), (1, 10**9), tuple(range(64)), (0,) * 64])
def test_bars_are_as_high_as_the_counts(counts):
    found = heights(bars(Histogram(0, 1, counts), height=40))
    assert found == [math.ceil(40 * count / max(1, *counts)) for count in counts]


def test_bars_are_one_path():
    picture = bars(Histogram.of(range(1000)))
    assert picture.count("<path") == 1
    assert len(bars(Histogram(0, 1, tuple(i * 7919 % 1000 for i in range(64))))) < 700


def points(chart):
    return [[tuple(map(float, p.split(","))) for p in run.split()] for run in re.findall(r'points="(.*?)"', chart)]


def test_a_line_lies_where_its_logarithm_is():
    (up, flat, *_legend) = points(lines({"up": [1.0, 10.0, 100.0], "flat": [1, 1, 1]}, "abc", caption="c"))
    assert up[0][1] - up[1][1] == pytest.approx(up[1][1] - up[2][1], abs=0.11)
    assert up[1][0] - up[0][0] == pytest.approx(up[2][0] - up[1][0], abs=0.11)
    assert up[0][1] > up[2][1]
    assert {y for _, y in flat} == {up[0][1]}


def test_what_has_no_logarithm_is_seen():
    chart = lines({"a": [1.0, 0.0, math.inf, math.nan, 10.0]}, range(5), caption="c")
    (a, _legend) = points(chart)
    assert a[1][1] > a[0][1] > a[4][1] > a[2][1] == a[3][1]
    assert ">0</text>" in chart
    assert ">not finite</text>" in chart
    assert ">0</text>" not in lines({"a": [1.0]}, [1], caption="c")
    assert ">0, or below 1e-250</text>" in lines({"a": [1.0, 1e-300]}, [1, 2], caption="c")


def test_none_is_a_gap():
    assert [len(run) for run in points(lines({"a": [1, None, 2, 3]}, range(4), caption="c"))] == [1, 2, 2]


@pytest.mark.parametrize("values", [[], [0.0], [math.nan], [None], [5e-324, 1.7e308], [3.0]])
def test_charts_of_little(values):
    chart = lines({"a": values}, range(len(values)), caption="c")
    assert all(0 <= number <= 800 for run in points(chart) for point in run for number in point)
    assert lines({}, [], caption="nothing").startswith("<figure>")


def test_series_differ_in_more_than_colour():
    chart = lines({f"s{i}": [1.0 + i] for i in range(343)}, [0], caption="c")
    styles = re.findall(
        r'<g stroke="(.*?)"><g stroke-width="1.8" stroke-dasharray="(.*?)">.*?</g><path d="M\S+ \S+?(m[^"M]*)', chart
    )
    assert len(styles) == 686  # the legend too
    assert len(set(styles)) == 343
    assert {colour for colour, *_ in styles} == set(COLOURS)
    for i in range(6):
        assert styles[i][1] != styles[i + 1][1]
        assert styles[i][2] != styles[i + 1][2]


PARTS = [
    "text",
    lines({"a": [1.0, 0.1], "b": [2.0, math.inf]}, ["x", "y"], caption="c"),
    table(["name", "std", "picture"], [[f"h.{i}<", 1 / (i + 3), bars(Histogram.of([i, 1, 2]))] for i in (10, 2, 0, 1)]),
]
# What a reader does: sort by name, filter; then what is left is written where `dump-dom` shows it.
USED = """<script>
document.querySelector("th button").click();
const field = document.querySelector("input");
field.value = "h.1";
field.dispatchEvent(new Event("input"));
</script></body>"""


@pytest.mark.browser
def test_a_page_opens_without_a_message(tmp_path):
    path = tmp_path / "a page #1.html"
    path.write_text(page("title", PARTS, {"a": HOSTILE}), encoding="utf-8")
    dom, messages = opened(path)
    assert messages == []
    assert embedded(dom) == {"a": HOSTILE}
    assert Tables(dom).rows == Tables(PARTS[2]).rows
    assert dom.count("<polyline") == 4
    assert dom.count("<th ") == dom.count("<button>") == 3


@pytest.mark.browser
def test_rows_are_sorted_and_filtered(tmp_path):
    path = tmp_path / "page.html"
    path.write_text(page("title", PARTS).replace("</body>", USED))
    dom, messages = opened(path)
    assert messages == []
    found = Tables(dom)
    assert [row[0] for row in found.rows] == ["h.0<", "h.1<", "h.2<", "h.10<"]
    assert found.shown == ["h.1<", "h.10<"]


@pytest.mark.browser
@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        ("<script>nothing.there()</script>", "nothing is not defined"),
        ("<script>console.warn('careful')</script>", "careful"),
        ('<img src="https://example.invalid/x.png">', "Content Security Policy"),
    ],
)
def test_an_error_in_a_page_is_seen(tmp_path, spoilt, message):
    path = tmp_path / "page.html"
    path.write_text(page("title", [Markup(spoilt)]))
    _, messages = opened(path)
    assert len(messages) == 1
    assert message in messages[0]


SCROLLED = """<script>
const box = document.querySelector(".wide");
box.scrollTop = 5000;
const [inner, outer] = [document.querySelector("th").getBoundingClientRect(), box.getBoundingClientRect()];
console.log(inner.top - outer.top, outer.height <= innerHeight, box.scrollTop);
</script></body>"""


@pytest.mark.browser
def test_a_long_table_scrolls_below_its_headings(tmp_path):
    """Its box is no higher than the window, so the bar that scrolls it sideways can be reached too."""
    path = tmp_path / "page.html"
    made = page("title", [table(["name", "number"], [[f"h.{i}", i] for i in range(1000)])])
    path.write_text(made.replace("</body>", SCROLLED))
    _, messages = opened(path)
    assert len(messages) == 1
    assert "0 true 5000" in messages[0]
