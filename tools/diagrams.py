"""`make diagrams`: keeps the pages' diagrams as drawn in `diagrams/`, and removes what no page shows.

Mermaid takes half a CPU second a diagram, for which everyone who builds the site would wait.
"""

import sys

import markdown
from mkdocs.config import load_config

from extensions import PageError, diagrams
from extensions.cache import ROOT


def shown() -> dict:
    """The files of all diagrams that the pages show, and what is or has to be in them."""
    config = load_config(str(ROOT / "mkdocs.yml"))
    diagrams.shown.clear()
    for page in sorted((ROOT / "docs").rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        options = {"extensions": config.markdown_extensions, "extension_configs": config.mdx_configs}
        try:
            markdown.markdown(text, **options)
        except PageError as error:
            raise PageError(str(error).replace("page:", f"{page.relative_to(ROOT)}:", 1)) from None
    return dict(diagrams.shown)


def main() -> None:
    """Bring `diagrams/` in step with the pages."""
    try:
        drawings = shown()
    except PageError as error:
        sys.exit(f"A page cannot be read, so nothing was drawn: {error}")
    diagrams.FOLDER.mkdir(exist_ok=True)
    old = set(diagrams.FOLDER.glob("*.svg"))
    for file in old - set(drawings):
        file.unlink()
    for file in set(drawings) - old:
        file.write_text(drawings[file], encoding="utf-8")
    print(f"{len(drawings)} diagrams: {len(set(drawings) - old)} drawn, {len(old - set(drawings))} removed")


if __name__ == "__main__":
    main()
