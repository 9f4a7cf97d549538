"""The page about versions says what `make upgrade` found, and nothing else."""

import hashlib
import json
import re
from types import SimpleNamespace

import pytest

from extensions import PageError, releases
from extensions.results import pinned
from tests.conftest import ROOT

MD = SimpleNamespace(treeprocessors={})
SOURCE = hashlib.sha256((ROOT / "examples" / "first_agent.py").read_bytes()).hexdigest()


def entry(program: str, error: str | None = None, source: str = SOURCE) -> dict:
    problem = error and "the program failed with exit status 1"
    page = program.partition("#")[0] if "#" in program else "docs/index.md"
    return {"program": program, "page": page, "source_sha256": source, "problem": problem, "error": error}


@pytest.fixture
def folder(tmp_path):
    """Three releases: one program runs on all, one from the second on, one on none."""
    found = {
        "2.9.3": [
            entry("examples/first_agent.py"),
            entry("docs/a.md#2", "KeyError: <lr>"),
            entry("docs/b.md#1", "E"),
        ],
        "2.55.1": [entry("examples/first_agent.py"), entry("docs/a.md#2"), entry("docs/b.md#1", "E")],
        "2.59.0": [entry("examples/first_agent.py"), entry("docs/a.md#2"), entry("docs/b.md#1", "E")],
    }
    for release, programs in found.items():
        (tmp_path / f"{release}.json").write_text(json.dumps({"programs": programs}))
    return tmp_path


def rows(html: str) -> list[list[str]]:
    found = re.findall(r"<tr>(<td>.*?)</tr>", html)
    return [[re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<td>(.*?)</td>", row)] for row in found]


def test_what_breaks_the_newest_release_first(folder):
    html = releases.breaks(releases.tried(folder), MD)
    assert [row[:2] for row in rows(html)] == [
        ["2.59.0", "b, program 1"],
        ["2.55.1", "b, program 1"],
        ["2.9.3", "a, program 2"],
        ["2.9.3", "b, program 1"],
    ]
    assert "<code>KeyError: &lt;lr&gt;</code>" in html


def test_the_oldest_release_of_each_program(folder):
    assert {row[0]: row[1] for row in rows(releases.oldest(releases.tried(folder), MD))} == {
        "first_agent.py": "2.9.3",
        "a, program 2": "2.55.1",
        "b, program 1": pinned()["ray"],
    }


def test_a_program_that_has_changed_since_says_so(folder):
    data = {"programs": [entry("examples/first_agent.py", source="0")]}
    (folder / "2.9.3.json").write_text(json.dumps(data))
    assert ["first_agent.py", "2.9.3, but it has changed since"] in rows(
        releases.oldest(dict(list(releases.tried(folder).items())[:1]), MD)
    )


def test_a_program_that_changed_between_two_trials_says_so(folder):
    """The release shown is that of the older source, whatever the newer trial saw."""
    data = {"programs": [entry("examples/first_agent.py", source="0"), entry("docs/a.md#2", source="0")]}
    (folder / "2.9.3.json").write_text(json.dumps(data))
    shown = {row[0]: row[1] for row in rows(releases.oldest(releases.tried(folder), MD))}
    assert shown["first_agent.py"] == "2.9.3, but it has changed since"
    assert shown["a, program 2"] == "2.9.3, but it has changed since"


def test_programs_stand_in_the_order_of_their_pages(folder):
    data = {"programs": [entry("docs/z.md#1"), entry("examples/first_agent.py"), entry("docs/a.md#2")]}
    (folder / "2.60.9.json").write_text(json.dumps(data))
    shown = [row[0] for row in rows(releases.oldest(releases.tried(folder), MD))]
    assert shown == ["a, program 2", "b, program 1", "first_agent.py", "z, program 1"]


def test_a_trial_that_cannot_be_read_is_named(folder):
    (folder / "2.9.3.json").write_text("{")
    with pytest.raises(PageError, match=r"A file in .* cannot be read \("):
        releases.tried(folder)


def test_the_link_to_a_page_is_resolved_by_mkdocs(folder):
    resolved = SimpleNamespace(path_to_url=lambda href: href.replace("../a.md", "../a/index.html"))
    md = SimpleNamespace(treeprocessors={"relpath": resolved})
    assert '<a href="../a/index.html">a, program 2</a>' in releases.breaks(releases.tried(folder), md)


def test_without_a_trial_the_page_says_how_to_make_one(tmp_path):
    with pytest.raises(PageError, match="do it with: make upgrade RAY="):
        releases.tried(tmp_path)


def test_a_releases_fence_holds_what_it_knows():
    with pytest.raises(
        PageError, match="A releases fence holds one of: what breaks, each program; not 'all'"
    ):
        releases.formatter("all", "releases", "releases", {}, MD)


@pytest.mark.parametrize("release", sorted(releases.tried()))
def test_a_trial_is_whole(release):
    """Whatever was added since, no trial was cut short; and each error has its sentence."""
    data = releases.tried()[release]
    assert data["versions"]["ray"] == release != pinned()["ray"]
    assert len(data["programs"]) > 170  # so many the site had when the first release was tried
    for one in data["programs"]:
        assert (one["problem"] is None) == (one["error"] is None)
        assert re.fullmatch(r"(examples|snippets)/.+\.py|docs/.+\.md#\d+", one["program"])
