"""Snippets that may take so much time and memory and no more; `limit` and `refused` are for use inside them."""

import resource
from pathlib import Path

from processes import run

MOST_MEMORY = 250 << 20  # of addresses that a hostile input may take in addition to those of the start
MOST_SECONDS = 60  # a bound for what would hang, not a measure of speed


def bounded(code, **variables):
    """Run a snippet in a process with these limits; `variables` are known in it."""
    given = "\n".join(f"{name} = {value!r}" for name, value in variables.items())
    return run(f"from bounded import *\n{given}\nlimit()\n{code}", timeout=MOST_SECONDS)


def limit():
    """Import what the snippets use, and limit the addresses of this process from then on."""
    import scipy.special  # noqa: F401

    import fastinit.checkpoint._survey.survey
    import fastinit.checkpoint._verify
    import fastinit.cli
    import fastinit.sources  # noqa: F401

    addresses = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (addresses + MOST_MEMORY,) * 2)


def refused(call, message, kind=ValueError):
    """Call what must raise one line with a message in it."""
    try:
        received = call()
    except kind as error:
        said = str(error)
        assert message in said, said[:500]
        assert len(said.splitlines()) == 1, said[:500]
    else:
        raise AssertionError(f"must raise {message!r}. Received: {received!r:.200}")


def header_file(path, header, nbytes=0):
    """A safetensors file with any text for a header and zeros behind it, which take no space."""
    text = header if isinstance(header, bytes) else header.encode()
    with Path(path).open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + nbytes)
    return Path(path)
