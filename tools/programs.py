"""What an example's source decides: the seeds that it is recorded with, and whether its verdict is fresh.

Nothing here runs a program; all is read from the source, most of it from its syntax tree.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from runner.pages import has_target

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
DOCS = ROOT / "docs"

# `1000 * SEED + episode` and `100_000 * SEED + episode` stand in the examples: all stays below 2**31.
LOWEST_SEED, SEEDS_END = 1_000, 21_000
# Programs count on from SEED for envs side by side, and test from SEED + 1000: two seeds never share one.
APART = 1_200

# Calls that measure nothing: what they return is only as fresh as what they are given.
_ARITHMETIC = {"float", "int", "round", "abs", "max", "min", "sum", "len", "range", "list", "sorted", "str"}
_ARITHMETIC_MODULES = {"np", "numpy", "math", "statistics", "time"}


def split_switches(name: str) -> tuple[str, dict[str, str]]:
    """`algorithms/rainbow+WITHOUT=noisy` as the example and the environment variables that it runs with.

    Raises:
        ValueError: what follows a `+` is not `NAME=value`.
    """
    example, *switches = name.split("+")
    for switch in switches:
        if not re.fullmatch(r"[A-Z][A-Z_]*=[\w.-]+", switch):
            raise ValueError(switch)
    return example, dict(switch.split("=", 1) for switch in switches)


# Seeds ----------------------------------------------------------------------------------------------


def how_many_seeds(name: str, source: str, docs: Path = DOCS) -> int:
    """Ten for the main program of an algorithm page and its peer in another library, five, or two.

    Args:
        name: such as `algorithms/ppo`, or with switches behind a `+`.
        source: the program.
        docs: where the pages stand.
    """
    example, switches = split_switches(name)
    folder, _, stem = example.rpartition("/")
    page = docs / "algorithms" / f"{stem.removesuffix('_sb3')}.md"
    if folder == "algorithms" and page.is_file() and not switches:
        return 10
    return 5 if switches or has_target(source) else 2


def seeds_of(name: str, source: bytes, how_many: int) -> list[int]:
    """The seeds that a program is recorded with: nobody chose them, its own text did.

    Each lies in a band of its own, at least `APART` from every other.
    """
    width = (SEEDS_END - LOWEST_SEED) // how_many
    seeds = []
    for number in range(how_many):
        digest = hashlib.sha256(f"{name} {number} {hashlib.sha256(source).hexdigest()}".encode()).digest()
        seeds.append(LOWEST_SEED + number * width + int.from_bytes(digest[:8], "big") % (width - APART + 1))
    return seeds


def enough_solved(solved: int, of: int) -> bool:
    """Nine of ten and four of five are enough; of fewer, all."""
    return solved >= (of - 1 if of >= 5 else of)


# What a page shows ----------------------------------------------------------------------------------

_SHOWS = re.compile(r"```(?:output|curve|comparison|recorded-diagram)\n(.*?)```", re.DOTALL)
_NUMBER = re.compile(r"`#!result ([^`]+)`")
_PRINTS_ITS_RECORD = re.compile(
    r"<!-- program: prints its record -->\s*```.*?--8<-- \"examples/(.+?)\.py\"", re.DOTALL
)


def shown_on_pages(folders: tuple[Path, ...] = (DOCS, ROOT / "snippets")) -> set[str]:
    """Every example of whose record a page shows something, with its switches."""
    shown: set[str] = set()
    for page in (page for folder in folders for page in folder.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        for body in _SHOWS.findall(text):
            shown |= {
                re.split(r":? ", line.strip(), maxsplit=1)[0] for line in body.split("\n") if line.strip()
            }
        for words in map(str.split, _NUMBER.findall(text)):
            shown |= set(words[2:] if words[0] == "ratio" else words[:1])
        shown |= set(_PRINTS_ITS_RECORD.findall(text))
    return shown


# The verdict ----------------------------------------------------------------------------------------


def verdict_problem(source: str) -> tuple[int, str] | None:
    """Why the verdict of a program is not a fresh measurement, and in which line; None if it is one.

    The verdict line prints a value. That value has to be computed after the training, from something that
    was measured there, and must not be what ended the training: the best of many noisy evaluations is
    better than the policy.
    """
    tree = ast.parse(source)
    trainers = {  # the program's own functions and classes that train
        node.name
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and _trains(node, set())
    }
    statements = list(_top_level(tree.body))
    training = [s for s in statements if _trains(s, trainers)]
    if not training:
        return 1, "no training (a progress line, train(), learn() or fit()) stands at the top level"
    last = statements.index(training[-1])
    verdicts = [(n, v) for n, s in enumerate(statements) if (v := _verdict_value(s)) is not None]
    if not verdicts:
        return 1, "no line `greedy return ...` is printed at the top level"
    position, value = verdicts[-1]
    if position <= last:
        return value.lineno, "the verdict is printed during the training"
    if not isinstance(value, ast.Name):
        return (
            value.lineno,
            f"the verdict `{ast.unparse(value)}` is no variable that is set after the training",
        )
    for statement in training:
        if line := _ends_by(statement, value.id):
            return line, f"`{value.id}`, the verdict, ends the training itself; name that value differently"
    if value.id not in _fresh_names(statements[last + 1 : position], set()):
        return value.lineno, f"`{value.id}`, the verdict, is not measured after the training"
    return None


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run, in order, those behind `if __name__ == "__main__":` and in `with` too."""
    for statement in body:
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            continue
        guard = isinstance(statement, ast.If) and "__name__" in ast.unparse(statement.test)
        if guard or isinstance(statement, ast.With):
            yield from _top_level(statement.body)
        else:
            yield statement


def _printed(node: ast.AST) -> Iterator[tuple[str, ast.JoinedStr]]:
    """Each f-string that `node` prints, with the text that it begins with."""
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "print":
            for text in call.args:
                if isinstance(text, ast.JoinedStr) and text.values:
                    first = text.values[0]
                    yield (first.value if isinstance(first, ast.Constant) else ""), text


def _trains(node: ast.AST, trainers: set[str]) -> bool:
    """Whether `node` prints progress lines, trains, or calls something in the program that does."""
    if any(start.startswith("iteration ") for start, _ in _printed(node)):
        return True
    for call in (inner for inner in ast.walk(node) if isinstance(inner, ast.Call)):
        if isinstance(call.func, ast.Name) and call.func.id in trainers:
            return True
        # `module.train(False)` is PyTorch's switch, not a training.
        method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        if method == "learn" or (method == "train" and not call.args) or _fits(call):
            return True
    return False


def _fits(call: ast.Call) -> bool:
    """Whether a call is `tuner.fit()`, with which Tune trains."""
    return isinstance(call.func, ast.Attribute) and call.func.attr == "fit" and not call.args


def trains_with_tune(source: str) -> bool:
    """Whether Tune trains in a program: several trials at once, and so no curve of one training."""
    return any(_fits(node) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))


def _verdict_value(statement: ast.stmt) -> ast.expr | None:
    """What the verdict line prints as its return, if `statement` is that line."""
    for start, text in _printed(statement):
        values = [part for part in text.values if isinstance(part, ast.FormattedValue)]
        if start.startswith("greedy return ") and values:
            return values[0].value
    return None


def _names(node: ast.AST) -> set[str]:
    return {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}


def _bound(statement: ast.stmt) -> set[str]:
    """The names that an assignment binds."""
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return {name for target in targets for name in _names(target)}


def _ends_by(training: ast.stmt, name: str) -> int | None:
    """The line in which `name` decides that the training ends, if there is one."""
    for node in ast.walk(training):
        leaves = isinstance(node, ast.If) and any(
            isinstance(inner, (ast.Break, ast.Return)) for branch in node.body for inner in ast.walk(branch)
        )
        if (isinstance(node, ast.While) or leaves) and name in _names(node.test):
            return node.lineno
    return None


def _measures(expression: ast.AST, fresh: set[str]) -> bool:
    """Whether an expression calls something that may measure, or uses what was measured."""
    if _names(expression) & fresh:
        return True
    for call in ast.walk(expression):
        if isinstance(call, ast.Call):
            root = call.func
            while isinstance(root, ast.Attribute):
                root = root.value
            pure = isinstance(root, ast.Name) and root.id in _ARITHMETIC | _ARITHMETIC_MODULES
            # `result["env_runners"].get("episode_return_mean")` reads, and `returns.mean()` computes.
            reads = isinstance(call.func, ast.Attribute) and call.func.attr in ("get", "mean", "item", "sum")
            if not pure and not reads:
                return True
    return False


def _fresh_names(statements: list[ast.stmt], fresh: set[str]) -> set[str]:
    """The names that hold something measured in `statements`, which run in this order."""
    for statement in statements:
        if isinstance(statement, (ast.Assign, ast.AnnAssign)) and statement.value is not None:
            measured = _measures(statement.value, fresh)
            fresh = fresh | _bound(statement) if measured else fresh - _bound(statement)
        elif isinstance(statement, ast.AugAssign):
            fresh = fresh | (_bound(statement) if _measures(statement.value, fresh) else set())
        elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            call = statement.value  # `returns.append(value)`
            adds = isinstance(call.func, ast.Attribute) and call.func.attr in ("append", "extend", "add")
            if adds and any(_measures(argument, fresh) for argument in call.args):
                fresh = fresh | _names(call.func)
        else:
            if isinstance(statement, ast.For) and _measures(statement.iter, fresh):
                fresh = fresh | _names(statement.target)
            for block in ("body", "orelse", "finalbody"):
                fresh = _fresh_names(getattr(statement, block, []), fresh)
    return fresh
