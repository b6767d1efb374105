"""Pages in a real browser, Debian's chromium without a window, for the tests with the marker `browser`.

`opened` gives what the page is after its scripts have run, and what it wrote to the console; `cut_off` measures what
does not fit; `Tables` reads tables out of HTML, the browser's or ours.
"""

import contextlib
import functools
import html
import http.server
import json
import re
import subprocess
import tempfile
import threading
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


# Each page at each width, in a frame. A handler adds the next frame before it returns, so that the page counts as
# loading until the last one is measured. Text may end beyond the width only in a box that scrolls.
_MEASURE = """<!DOCTYPE html><body><script>
const queue = %s, found = [];
const scrolls = element => element && (["auto", "scroll"].includes(
  element.ownerDocument.defaultView.getComputedStyle(element).overflowX) || scrolls(element.parentElement));
const named = element => `${element.tagName.toLowerCase()} ${element.textContent.trim().slice(0, 60)}`;
const measure = page => {
  const root = page.documentElement, cut = [];
  if (root.scrollWidth > root.clientWidth) cut.push(`the page: ${root.scrollWidth} px`);
  const content = page.querySelector(".content") ?? root, edge = content.getBoundingClientRect().right;
  for (const element of content.querySelectorAll("*")) {
    if (![...element.childNodes].some(node => node.nodeType === 3 && node.data.trim())) continue;
    if (["SCRIPT", "STYLE", "TITLE"].includes(element.tagName)) continue;
    const picture = element.closest("svg"), box = element.getBoundingClientRect();
    const limit = picture ? picture.getBoundingClientRect().right : edge;
    if (box.right > limit + 1 && (picture || !scrolls(element.parentElement))) cut.push(named(element));
    const hides = ["hidden", "clip"].includes(page.defaultView.getComputedStyle(element).overflowX);
    if (hides && element.scrollWidth > element.clientWidth + 1 && element.clientWidth > 1) cut.push(named(element));
  }
  return cut;
};
const next = () => {
  if (!queue.length) { document.body.textContent = JSON.stringify(found); return; }
  const [name, width] = queue.shift(), frame = document.createElement("iframe");
  frame.style.cssText = `width:${width}px;height:900px;border:0`;
  frame.onload = () => {
    const cut = measure(frame.contentDocument);
    if (cut.length) found.push([name, width, cut]);
    next();
    frame.remove();
  };
  frame.src = name;
  document.body.append(frame);
};
next();
</script>"""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Write no line for each request."""


@contextlib.contextmanager
def _served(folder):
    """The address of a folder, in one origin: a page may look into frames of its own origin only."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def cut_off(folder, names, widths):
    """(page, width, texts) for each page of a folder on which text does not fit into a window of that width."""
    queue = [[name, width] for width in widths for name in names]
    path = Path(folder, "measure.html")
    path.write_text(_MEASURE % json.dumps(queue), encoding="utf-8")
    with _served(folder) as address:
        dom, _ = _run(f"{address}/{path.name}", "--dump-dom", "--window-size=2000,1000")
    path.unlink()
    return [tuple(found) for found in json.loads(html.unescape(re.search(r"<body>(.*?)</body>", dom, re.DOTALL)[1]))]


def _run(address, *options, timeout=300):
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [*_COMMAND, f"--user-data-dir={profile}", *options, address]
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=timeout, check=True)
    return done.stdout, done.stderr


def opened(path):
    """A page's DOM as HTML, after its scripts, and its messages on the console: errors, warnings, what it logged, and
    what its policy forbade."""
    dom, log = _run(Path(path).resolve().as_uri(), "--dump-dom")
    return dom, _CONSOLE.findall(log)


def pictured(path, picture, width=1000, height=1400):
    """A picture of a page, for people to look at."""
    _run(Path(path).resolve().as_uri(), f"--screenshot={Path(picture).resolve()}", f"--window-size={width},{height}")


class Tables(HTMLParser):
    """The tables of a page: `rows`, a list of cells for each row of a body, each cell its `data-v` as a float where it
    has one, or its text; `heads`; and `shown`, the text of every row that is not hidden."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.heads, self.shown, self._cell, self._hidden = [], [], [], None, False
        self.feed(str(text))  # markup would escape what is added to it
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
