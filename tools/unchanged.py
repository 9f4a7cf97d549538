"""Spares `make serve` the work whose result an edit cannot change. `make site` does not use this.

MkDocs makes everything anew at every edit. Three of its steps take nearly all of the time, and here each
keeps its last result for every page: Markdown, the template around it, and the search index. Events of
plugins, checks of links and the rest run as ever.

A page's Markdown is kept until a file changes that was opened while it was rendered: examples, snippets,
records, other pages whose facts it shows. Nobody has to name these files, so nobody can forget one. The
abbreviations, which every page opens, change the pages that hold an edited one. After an edit to the
settings, the theme or an extension, and when a file appears or goes, everything is made anew.
"""

import logging
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import jinja2
from material.plugins.search.plugin import SearchIndex
from mkdocs import utils
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
SOURCES = [ROOT / name for name in ("docs", "examples", "snippets", "results", "requirements.txt")]
ABBREVIATIONS = ROOT / "snippets" / "abbreviations.md"
CODE = [ROOT / name for name in ("mkdocs.yml", "extensions")]

Stamp = tuple[int, int] | None


def stamp(path: str) -> Stamp:
    """When a file was last changed, and its size; None if there is no such file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def files_under(starts: list[Path]) -> list[str]:
    """All files, without those that an editor or Python keeps beside them."""
    found = [str(start) for start in starts if start.is_file()]
    for start in starts:
        for folder, _, names in os.walk(start):
            if not folder.endswith("__pycache__"):
                found += [os.path.join(folder, name) for name in names if not name.startswith(".")]
    return sorted(name for name in found if not name.endswith("~"))


class Unchanged:
    """What one build keeps for the next; there is one of these in a process.

    Attributes:
        anew: the pages whose Markdown was rendered since `begin`.
    """

    def __init__(self) -> None:
        self.anew: list[str] = []
        self._rendered: dict[str, tuple] = {}
        self._in_template: dict[str, tuple] = {}
        self._searched: dict[str, tuple] = {}
        self._state: tuple = ()
        self._abbreviations: set[str] = set()
        self._opened: dict[str, Stamp] | None = None

    def install(self) -> None:
        """Put this into MkDocs, its templates and its search, for the rest of the process."""
        sys.addaudithook(self._note_what_is_opened)
        Page.render = self._around_markdown(Page.render)
        jinja2.Template.render = self._around_template(jinja2.Template.render)
        SearchIndex.add_entry_from_context = self._around_search(SearchIndex.add_entry_from_context)

    def begin(self) -> None:
        """Before each build: forget everything, if what changed can be in every page."""
        state = files_under(SOURCES), [(name, stamp(name)) for name in files_under(CODE)]
        if state != self._state:
            for kept in (self._rendered, self._in_template, self._searched):
                kept.clear()
            for name in _extensions():
                del sys.modules[name]  # Python reads an edited module only when it is imported anew
        self._state = state
        self._forget_pages_with_an_edited_abbreviation()
        self.anew = []

    def _forget_pages_with_an_edited_abbreviation(self) -> None:
        lines = set(ABBREVIATIONS.read_text(encoding="utf-8").splitlines()) - {""}
        for line in lines ^ self._abbreviations:
            defined = re.match(r"\*\[(\w+)\]: ", line)
            for name, (_, _, attributes, _) in list(self._rendered.items()):
                if defined is None or defined[1] in attributes["content"]:
                    del self._rendered[name]
        self._abbreviations = lines

    def _note_what_is_opened(self, event: str, arguments: tuple) -> None:
        if event == "open" and self._opened is not None and isinstance(arguments[0], str | Path):
            path = os.path.abspath(arguments[0])
            if path not in self._opened and Path(path).is_relative_to(ROOT):
                self._opened[path] = stamp(path)  # before it is read, so an edit meanwhile is seen

    def _around_markdown(self, render: Callable) -> Callable:
        results = ("content", "toc", "present_anchor_ids", "_title_from_render")

        def kept_or_rendered(page: Page, config: MkDocsConfig, files: Files) -> None:
            name = page.file.src_uri
            markdown, made_from, attributes, links = self._rendered.pop(name, (None, {}, {}, {}))
            if markdown != page.markdown or any(stamp(path) != then for path, then in made_from.items()):
                self.anew.append(name)
                _empty_caches_of_extensions()
                complaints = utils.CountHandler(level=logging.WARNING)
                logging.getLogger("mkdocs").addHandler(complaints)
                self._opened = {}
                try:
                    render(page, config, files)
                    made_from = self._opened
                    made_from.pop(str(ABBREVIATIONS), None)
                finally:
                    self._opened = None
                    logging.getLogger("mkdocs").removeHandler(complaints)
                if complaints.get_counts():
                    return  # a broken link, which has to be reported by each build until it is mended
                attributes = {result: getattr(page, result) for result in results}
                links = {file.src_uri: anchors for file, anchors in page.links_to_anchors.items()}
            for result, value in attributes.items():
                setattr(page, result, value)
            # A link is kept by the name of its page, because each build has a new object for that page.
            page.links_to_anchors = {
                files.get_file_from_path(name): anchors for name, anchors in links.items()
            }
            self._rendered[name] = page.markdown, made_from, attributes, links

        return kept_or_rendered

    def _around_template(self, render: Callable) -> Callable:
        def kept_or_rendered(template: jinja2.Template, *arguments, **names) -> str:
            context = dict(*arguments, **names)
            page = context.get("page")
            if not isinstance(page, Page):
                return render(template, context)
            shows = template.name, page.content, page.title, repr(page.meta), str(context["nav"])
            if self._in_template.get(page.url, [None])[0] != shows:
                self._in_template[page.url] = shows, render(template, context)
            return self._in_template[page.url][1]

        return kept_or_rendered

    def _around_search(self, add: Callable) -> Callable:
        def kept_or_added(index: SearchIndex, page: Page) -> None:
            about = page.content, page.title, repr(page.meta)
            if self._searched.get(page.url, [None])[0] != about:
                before = len(index.entries)
                add(index, page)
                self._searched[page.url] = about, index.entries[before:]
            else:
                index.entries += self._searched[page.url][1]

        return kept_or_added


def _extensions() -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] == "extensions"]


def _empty_caches_of_extensions() -> None:
    # Else a page that finds a record in a cache would not open the record's file.
    for name in _extensions():
        for value in vars(sys.modules[name]).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()
