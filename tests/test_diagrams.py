"""The diagrams that are committed as drawn are those that the pages show."""

import re

import pytest

import tools.diagrams
from extensions import diagrams
from tools.diagrams import shown

SOURCES = {
    "flowchart": "flowchart LR\naccTitle: T\naccDescr: D\na[One] --> b[Two]",
    "class": "classDiagram\naccTitle: T\naccDescr: D\nclass One {\n  act()\n}\nOne <|-- Two",
    "sequence": "sequenceDiagram\naccTitle: T\naccDescr: D\nOne->>Two: words",
}


@pytest.fixture(scope="module")
def sources() -> list[str]:
    """The sources of all diagrams on the pages, asked for in the way `make diagrams` does."""
    asked: list[str] = []
    drawn = diagrams._drawn
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diagrams, "_drawn", lambda source: asked.append(source) or drawn(source))
        assert set(shown()) == {diagrams.file_of(source) for source in asked}
    return asked


def test_each_diagram_stands_drawn_and_none_is_left_over(sources):
    assert len(sources) >= 50
    needed = {diagrams.file_of(source) for source in sources}
    committed = set(diagrams.FOLDER.iterdir())
    assert committed == needed, "diagrams/ is not in step with the pages; run: make diagrams"


@pytest.mark.slow
def test_a_committed_diagram_is_what_mermaid_draws(sources):
    """The shortest of each kind. Digits are cut: the last ones of a sine differ from CPU to CPU."""

    def cut(svg: str) -> str:
        return re.sub(r"-?\d+\.\d+", lambda number: f"{float(number[0]):.1f}", svg)

    shortest: dict[str, str] = {}
    for source in sorted(sources, key=len):
        shortest.setdefault(source.split()[0], source)
    assert set(shortest) == {"flowchart", "classDiagram", "sequenceDiagram"}
    for source in shortest.values():
        assert cut(diagrams.draw(source)) == cut(diagrams.file_of(source).read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", SOURCES)
def test_a_diagram_comes_out_the_same_whatever_was_drawn_before(kind):
    first = diagrams.draw(SOURCES[kind])
    for other in SOURCES.values():
        diagrams.draw(other)
    assert diagrams.draw(SOURCES[kind]) == first


def test_what_a_diagram_is_drawn_from_is_in_its_name(monkeypatch):
    source = SOURCES["flowchart"]
    name = diagrams.file_of(source)
    assert diagrams.file_of(source + " ") != name
    monkeypatch.setattr(diagrams, "_config", lambda: {"theme": "dark"})
    assert diagrams.file_of(source) != name
    monkeypatch.undo()
    monkeypatch.setattr(diagrams, "version", lambda package: "0")
    assert diagrams.file_of(source) != name


def test_a_page_that_cannot_be_read_is_named_and_nothing_is_drawn(tmp_path, monkeypatch):
    for folder in ("docs", "extensions/theme"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "docs" / "a.md").write_text("# A\n\n```mermaid\nflowchart TB\n a --> b\n```\n")
    (tmp_path / "mkdocs.yml").write_text((tools.diagrams.ROOT / "mkdocs.yml").read_text())
    monkeypatch.setattr(tools.diagrams, "ROOT", tmp_path)
    monkeypatch.setattr(diagrams, "FOLDER", tmp_path / "diagrams")
    with pytest.raises(SystemExit, match=r"nothing was drawn: docs/a\.md:\d+: A diagram has no accTitle"):
        tools.diagrams.main()
    assert not (tmp_path / "diagrams").exists()
