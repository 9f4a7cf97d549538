"""`--8<-- "examples/ppo.py"`: pymdownx.snippets, with one clear sentence when it is not there."""

from markdown import Markdown
from pymdownx.snippets import SnippetExtension, SnippetMissingError, SnippetPreprocessor

from . import PageError


class _Includes(SnippetPreprocessor):
    def run(self, lines: list[str]) -> list[str]:
        try:
            return super().run(lines)
        except SnippetMissingError as error:
            raise PageError(f"{error}.") from None


class IncludeExtension(SnippetExtension):
    """Takes the options of pymdownx.snippets."""

    def extendMarkdown(self, md: Markdown) -> None:
        """Hook into Markdown."""
        super().extendMarkdown(md)
        md.preprocessors.register(_Includes(self.getConfigs(), md), "snippet", 32)


def makeExtension(**kwargs: object) -> IncludeExtension:
    """For Markdown's loader."""
    return IncludeExtension(**kwargs)
