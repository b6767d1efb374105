"""Pages in a real browser, Debian's chromium without a window, for the tests with the marker `browser`.

`opened` gives what the page is after its scripts have run, and what it wrote to the console; `Tables` reads tables out
of HTML, the browser's or ours.
"""

import re
import subprocess
import tempfile
from html.parser import HTMLParser
from pathlib import Path

_COMMAND = [
    "chromium",
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
]
_CONSOLE = re.compile(r":CONSOLE[:(]\d+\)?\] (.*)")


def _run(path, *options, timeout=120):
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [*_COMMAND, f"--user-data-dir={profile}", *options, Path(path).resolve().as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=timeout, check=True)
    return done.stdout, done.stderr


def opened(path):
    """A page's DOM as HTML, after its scripts, and its messages on the console: errors, warnings, what it logged, and
    what its policy forbade."""
    dom, log = _run(path, "--dump-dom")
    return dom, _CONSOLE.findall(log)


def pictured(path, picture, width=1000, height=1400):
    """A picture of a page, for people to look at."""
    _run(path, f"--screenshot={Path(picture).resolve()}", f"--window-size={width},{height}")


class Tables(HTMLParser):
    """The tables of a page: `rows`, a list of cells for each row of a body, each cell its `data-v` as a float where it
    has one, or its text; `heads`; and `shown`, the text of every row that is not hidden."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.heads, self.shown, self._cell, self._hidden = [], [], [], None, False
        self.feed(text)
        self.close()
        self._end()

    def _end(self):
        if self._cell is not None:
            kind, value, text = self._cell
            into = self.heads if kind == "th" else self.rows[-1]
            into.append(text.strip() if value is None else float(value))
            if kind == "td" and not self._hidden and len(into) == 1:
                self.shown.append(into[0])
            self._cell = None

    def handle_starttag(self, tag, attributes):
        if tag in ("td", "th", "tr"):
            self._end()
        if tag == "tr":
            self._hidden = "hidden" in dict(attributes)
            self.rows.append([])
        elif tag in ("td", "th"):
            self._cell = [tag, dict(attributes).get("data-v"), ""]

    def handle_endtag(self, tag):
        if tag in ("td", "th", "tr", "tbody", "table"):
            self._end()
        if tag == "thead":
            self.rows.pop()

    def handle_data(self, data):
        if self._cell is not None:
            self._cell[2] += data
