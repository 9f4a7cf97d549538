"""The ```releases fence: on which releases of RLlib the programs here run, as `make upgrade` tried them."""

import hashlib
import html
import json
from pathlib import Path

from packaging.version import Version

from . import PageError
from .cache import ROOT
from .records import RESULTS
from .results import pinned
from .tables import table

RELEASES = RESULTS / "releases"


def tried(folder: Path = RELEASES) -> dict[str, dict]:
    """What was tried, by release, the oldest first.

    Raises:
        PageError: nothing was tried yet, or a file is no JSON.
    """
    try:
        found = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("*.json")}
    except json.JSONDecodeError as error:
        raise PageError(f"A file in {folder.name}/ cannot be read ({error}).") from None
    if not found:
        raise PageError("No other release was tried; do it with: make upgrade RAY=2.59.0")
    return {release: found[release] for release in sorted(found, key=Version)}


def _name(entry: dict, md) -> str:
    """The example, or the number of a program that stands on the page itself; a link to that page.

    The link is resolved and checked by MkDocs as any other.
    """
    file, _, number = entry["program"].partition("#")
    href = "../" + entry["page"].removeprefix("docs/")
    if "relpath" in md.treeprocessors:
        href = md.treeprocessors["relpath"].path_to_url(href)
    name = file.removeprefix("docs/").removesuffix(".md") if number else file.removeprefix("examples/")
    text = html.escape(name).replace("/", "/<wbr>") + (f", program {number}" if number else "")
    return f'<a href="{html.escape(href)}">{text}</a>'


def _changed(entry: dict) -> bool:
    file = ROOT / entry["program"]
    return file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() != entry["source_sha256"]


def breaks(releases: dict[str, dict], md) -> str:
    """A table of the programs that do not run unchanged: where, with which release, and with what error."""
    rows = [
        [release, _name(entry, md), f"<code>{html.escape(entry['error'])}</code>"]
        for release, data in reversed(releases.items())
        for entry in data["programs"]
        if entry["problem"]
    ]
    heads = ["release", "program", "last line of the error"]
    return table("Programs that break with another release", "releases", heads, rows)


def oldest(releases: dict[str, dict], md) -> str:
    """A table of all programs, each with the oldest tried release on which it runs unchanged."""
    runs: dict[str, str] = {}
    entries: dict[str, dict] = {}
    for release, data in reversed(releases.items()):  # so the oldest that is good is written last
        for entry in data["programs"]:
            newest = entries.setdefault(entry["program"], entry)
            if not entry["problem"]:
                changed = _changed(entry) or entry["source_sha256"] != newest["source_sha256"]
                runs[entry["program"]] = release + (", but it has changed since" if changed else "")
    rows = [
        [_name(entry, md), runs.get(name, pinned()["ray"])]
        for name, entry in sorted(entries.items(), key=lambda item: (item[1]["page"], item[0]))
    ]
    return table("Releases on which each program runs", "releases", ["program", "oldest"], rows)


def formatter(source: str, language: str, css_class: str, options: dict, md, **kwargs) -> str:
    """A fence that holds `what breaks` or `each program`.

    Raises:
        PageError: it holds something else.
    """
    kinds = {"what breaks": breaks, "each program": oldest}
    if source.strip() not in kinds:
        raise PageError(f"A releases fence holds one of: {', '.join(kinds)}; not {source.strip()!r}.")
    return kinds[source.strip()](tried(), md)
