"""What a `console` fence may hold. Its commands are not run, so each is of a kind that is known to work.

pip install ...         packages of requirements.txt, in no other version than its own
python x.py             a program of the same page, under the name that a reader gives it
make TARGET NAME=...    a target and a variable of the Makefile, and examples and pages that exist
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

_PIN = re.compile(r"^([\w.-]+)(?:\[[^\]]*\])?==([^\s;]+)", re.MULTILINE)


def problem_of(command: str, file_names: Iterable[str], root: Path) -> str | None:
    """What is wrong with a line of a `console` fence, in words that end a sentence; None if nothing is.

    Args:
        command: the line.
        file_names: the programs of the page.
        root: the folder that holds the Makefile.
    """
    try:
        words = shlex.split(command, comments=True)
    except ValueError as error:
        return f"a shell cannot read it: {error}"
    match words:
        case []:
            return None
        case ["pip", "install", first, *more]:
            return next(filter(None, (_package(word, root) for word in (first, *more))), None)
        case ["python", file]:
            return None if file in file_names else f"{file} is no program of this page"
        case ["make", target, *settings]:
            return _make(target, settings, root)
    return "only `pip install`, `python` with a program of this page and `make` are known here"


def _package(word: str, root: Path) -> str | None:
    try:
        package = Requirement(word)
    except InvalidRequirement:
        return f"{word} is no package"
    pins = {
        canonicalize_name(name): number
        for name, number in _PIN.findall((root / "requirements.txt").read_text(encoding="utf-8"))
    }
    name = canonicalize_name(package.name)
    if name not in pins:
        return f"{package.name} is not in requirements.txt"
    pin = f"=={pins[name]}"
    if package.url or str(package.specifier) not in ("", pin):
        return f"requirements.txt has {package.name}{pin}"
    if name == "ray" and not package.specifier:
        return f"RLlib's version is missing: {word}{pin}"
    return None


def _make(target: str, settings: list[str], root: Path) -> str | None:
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    if not re.search(rf"^{re.escape(target)}:", makefile, flags=re.MULTILINE):
        return f"the Makefile has no target {target}"
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or f"$({name})" not in makefile:
            return f"the Makefile knows no setting {setting}"
        if name == "EXAMPLES":
            for example in value.split():
                file = f"examples/{example.split('+')[0]}.py"
                if example != "stale" and not (root / file).is_file():
                    return f"there is no {file}"
                if example != "stale" and not (root / "results" / f"{example}.json").is_file():
                    return f"nothing is recorded of {example}"
        if name == "PAGE" and not (root / value).is_file():
            return f"there is no {value}"
    return None
