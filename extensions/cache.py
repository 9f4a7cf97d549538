"""Keeps what is slow to draw in `.cache/`, by the hash of everything that it was drawn from."""

import functools
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".cache"


def drawn(kind: str, source: str, draw: Callable[[], str]) -> str:
    """The picture of `source`, drawn by `draw` unless an earlier build has drawn it.

    Args:
        kind: names the formatter; with its version, because a new version may draw differently.
        source: all that the picture depends on.
        draw: makes the picture.
    """
    key = hashlib.sha256(f"{kind}\n{source}".encode()).hexdigest()[:32]
    file = FOLDER / f"{key}.svg"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    picture = draw()
    write_whole(file, picture)
    return picture


def write_whole(file: Path, text: str) -> None:
    """Write a file whole or not at all: whoever reads it meanwhile gets the old one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    half = file.with_name(f".{file.name}.{os.getpid()}")
    half.write_text(text, encoding="utf-8")
    half.replace(file)


@functools.cache
def source_of(module_file: str) -> str:
    """The text of a formatter, so that an edit to it draws its pictures anew."""
    return Path(module_file).read_text(encoding="utf-8")
