"""Sphinx's configuration: `sphinx-build -W --keep-going -n -q -b html docs build/docs`, after `pip install '.[docs]'`.

The build needs no network, no display and no GPU: nothing is fetched, and formulas become MathML, which browsers draw
by themselves.
"""

import importlib.util
import os
import re
import sys
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.ext.autodoc.mock import _MockModule, _MockObject

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

os.environ.setdefault("KERAS_BACKEND", "jax")  # whatever is there: TensorFlow may not be

# The extra `docs` does not hold torch, gigabytes with CUDA: where it is not installed autodoc imports a stand-in.
autodoc_mock_imports = [] if importlib.util.find_spec("torch") else ["torch"]
_MockObject.__lt__ = lambda self, other: False  # the version of a stand-in is the newest
_MockObject.__or__ = _MockObject.__ror__ = lambda self, other: self  # `torch.Tensor | Iterable[torch.Tensor]`
_MockModule.__mro_entries__ = lambda self, bases: (object,)  # a class that is looked up by its full name

import commands  # noqa: E402

import fastinit  # noqa: E402

project = "fastinit"
author = "The fastinit authors"
copyright = "2026 The fastinit authors, MIT licence"
version = release = fastinit.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["dollarmath", "attrs_inline"]
myst_heading_anchors = 3
exclude_patterns = ["_generated"]
suppress_warnings = ["myst.header"]  # the changelog's headings begin at the second level

html_theme = "furo"
html_title = f"fastinit {release}"
html_static_path = ["_static"]
html_css_files = ["fastinit.css"]
html_copy_source = html_show_sourcelink = False
html_math_renderer = "mathml"
pygments_style = "friendly"
pygments_dark_style = "github-dark"

default_role = "code"  # what docstrings have between backticks
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 90
napoleon_custom_sections = [("Attributes", "params_style")]  # frozen data: what it is made of
add_module_names = False

# Types in signatures that belong to others, whose documentation no build may fetch, or that are aliases of ours.
_OTHERS = (
    r"(ABCMeta|KerasTensor|collections|jax|keras|ml_dtypes|nn|np|npt|numpy|os|pathlib|random|sklearn|torch|typing)\b.*"
)
_ALIASES = (
    r"(fastinit\..*\.)?(Activation|Any|AnyArray|Array|ArrayLike|Arrays|Callable|DTypeLike|Figure|Iterable|Iterator|"
    r"Distributions|Layout|Mapping|Model|Named|Optimizer|Packed|Path|PathLike|Probes|Progress|Region|"
    r"Rule|Scheme|Seed|Self|Sequence|Tensor|optional|tuple)"
)
nitpick_ignore_regex = [("py:.*", _OTHERS), ("py:class", _ALIASES)]

_LITERAL = re.compile(r"(`[^`]*`)")


def _plain(_app, _what, _name, _object, _options, lines):
    """Docstrings are plain text with backticks and doctests: a star in `(out, in, *kernel)` is a star, and what is
    returned is a sentence, which may have a colon."""
    returned = False
    for i, line in enumerate(lines):
        if line.lstrip().startswith((">>>", "...")):
            continue
        parts = _LITERAL.split(line)
        parts[::2] = [re.sub(r"(\*|\||(?<=\w)_(?!\w))", r"\\\1", part) for part in parts[::2]]
        line = "".join(parts)
        if line == "Returns:":
            returned, line = True, ""
        elif returned and line.strip():
            line, returned = f":returns: {line.strip()}", False
        lines[i] = line


def _mathml(self, node):
    self.body.append(tex2mathml(node.astext(), as_block=node.tagname == "math_block"))
    raise nodes.SkipNode


def _generate(app):
    """What pages include: the commands' help, and pictures where `pictures.py` makes some."""
    folder = HERE / "_generated"
    folder.mkdir(exist_ok=True)
    commands.write(folder / "commands.md")
    if importlib.util.find_spec("pictures"):
        importlib.import_module("pictures").make(folder)


def setup(app):
    app.add_html_math_renderer("mathml", inline_renderers=(_mathml, None), block_renderers=(_mathml, None))
    app.connect("autodoc-process-docstring", _plain, priority=400)  # before napoleon
    app.connect("builder-inited", _generate)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
