"""What turns diagrams, records and RLlib's settings into parts of a page while the site is built.

includes.py   `--8<-- "examples/ppo.py"`; every line of a page knows where it stands
diagrams.py   a ```mermaid fence becomes an inline SVG, taken from diagrams/, with checked links
equations.py  $x$ and $$x$$ become MathML
records.py    reads results/**/*.json; everything about a run comes from there
results.py    ```output, ```curve, ```comparison fences and `#!result ...` in running text
settings.py   a ```settings fence becomes a table with RLlib's real defaults
catalogue.py  ```selector and ```support: the algorithms side by side
scaling.py    ```speed, ```foretold and ```calculator: how RLlib scales, from the record of scale_measure.py
releases.py   ```releases: on which releases of RLlib the programs run
tables.py     a table as the theme draws its own
strict.py     Markdown left as text, and whatever a formatter raises, ends the build
cache.py      keeps drawn pictures between builds

They are Markdown extensions and formatters, not MkDocs hooks, so that another builder can use them.
"""

from mkdocs.exceptions import BuildError
from pymdownx.inlinehilite import InlineHiliteException
from pymdownx.superfences import SuperFencesException


class PageError(SuperFencesException, InlineHiliteException, BuildError):
    """A page asks for something that is not there; ends the build with one sentence."""
