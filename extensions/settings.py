"""The table of settings on an algorithm page, with RLlib's real defaults and the example's values."""

import ast
import functools
import html
import json

import yaml

from . import PageError
from .cache import ROOT
from .records import RESULTS
from .tables import table

DEFAULTS = RESULTS / "rllib_defaults.json"


def defaults() -> dict[str, dict[str, object]]:
    """RLlib's defaults by config class, as `tools/defaults.py` read them from the installed RLlib."""
    return json.loads(DEFAULTS.read_text(encoding="utf-8"))


@functools.lru_cache(maxsize=64)
def _used(example: str, modified: int) -> dict[str, str]:
    """The keyword arguments that an example passes to its config's methods, as source text.

    Of `a if PENDULUM else b` it is `a`: an example names the environment of its page first.
    """
    tree = ast.parse((ROOT / "examples" / f"{example}.py").read_text(encoding="utf-8"))
    return {
        keyword.arg: ast.unparse(value.body if isinstance(value := keyword.value, ast.IfExp) else value)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
        for keyword in call.keywords
        if keyword.arg
    }


def formatter(source: str, language: str, css_class: str, options: dict, md, **kwargs) -> str:
    """A fence of YAML: `config`, `example`, and for each of `settings` what it does and which way to turn.

    `last` gives the last column, which way to turn, another heading.

    Raises:
        PageError: the config class or a setting is unknown to the installed RLlib.
    """
    try:
        data = yaml.safe_load(source)
        config, example, settings = data["config"], data["example"], data["settings"]
        known = defaults()[config]
        file = ROOT / "examples" / f"{example}.py"
        used = _used(example, file.stat().st_mtime_ns)
        rows = [
            (name, known[name], used.get(name), text["does"], text["turn"]) for name, text in settings.items()
        ]
    except KeyError as error:
        raise PageError(
            f"The settings table names {error}, which {DEFAULTS.name} does not know; "
            "renew that file with: make defaults"
        ) from None
    except (yaml.YAMLError, OSError, TypeError) as error:
        raise PageError(f"This settings table cannot be read: {error}") from None
    cells = [
        [
            f'<code>{html.escape(name)}</code><br><span class="range">default {html.escape(str(default))}'
            + (f"<br>here {html.escape(here)}" if here else "")
            + "</span>",
            html.escape(does),
            html.escape(turn),
        ]
        for name, default, here, does, turn in rows
    ]
    return table(
        "Settings", "settings", ["setting", "what it does", data.get("last", "when learning stalls")], cells
    )
