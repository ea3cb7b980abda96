"""Grids of parameters, checked wholly before anything runs.

A notebook's parameters cell is the schema: a parameter has the type of its default. A whole number
is at least 1, or at least 0 where its default is 0; a number is finite; a comment can say "above 0"
or "at least 100". Where it quotes words beside the default, the text must be one of them. What
`Network` has too, it must accept, in every combination. A list in a grid is an axis; for a
parameter that is a list itself, a list of lists.
"""

import ast
import itertools
import json
import math
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from nomalib.network import Network

Schema = dict[str, tuple[Any, str]]  # default and comment of each parameter
TAGGED = "parameters"


class _Loader(yaml.SafeLoader):
    """Refuses what YAML reads otherwise than it is written, and names given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        names = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"{sorted(twice)[0]} stands there twice")
        return super().construct_mapping(node, deep)

    def construct_as_written(self, node: yaml.ScalarNode) -> Any:
        value = yaml.SafeLoader.yaml_constructors[node.tag](self, node)
        whole = re.fullmatch(r"[-+]?(0|[1-9]\d*)", node.value)
        if not whole and (isinstance(value, int) or ":" in node.value or "_" in node.value):
            raise ValueError(f"YAML reads {node.value} as {value}; write the number in digits")
        return value


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.construct_as_written)


def load(path: str | Path) -> Any:
    """What a YAML file holds.

    Raises:
        ValueError: there is none, or it cannot be read as it is written; naming it.
    """
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)  # a SafeLoader
    except FileNotFoundError:
        raise ValueError(f"{path} is not there") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def schema(notebook: str | Path) -> Schema:
    """Default and comment of each parameter of a notebook.

    Raises:
        ValueError: the notebook has no such cell, or a parameter is no plain value; naming it.
    """
    try:
        cells = json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{notebook} is no notebook: {error!r}") from None
    tagged = [cell for cell in cells if TAGGED in cell["metadata"].get("tags", [])]
    if len(tagged) != 1:
        raise ValueError(f"{notebook} has {len(tagged)} cells tagged 'parameters', not one")
    source = "".join(tagged[0]["source"])
    lines, found = source.splitlines(), {}
    for statement in ast.parse(source).body:
        targets = getattr(statement, "targets", [getattr(statement, "target", None)])
        try:
            (name,) = [target.id for target in targets]
            default = ast.literal_eval(statement.value)
        except (AttributeError, ValueError):
            wrong = ast.get_source_segment(source, statement)
            raise ValueError(
                f"{notebook}: {wrong!r} in its parameters cell must be one name = one plain value"
            ) from None
        said = " ".join(lines[statement.lineno - 1 : statement.end_lineno])
        found[name] = default, said.partition("#")[2].strip()
    return found


def _allowed(value: Any, default: Any, comment: str) -> str | None:
    """What is allowed, where the value is not."""
    if isinstance(default, bool):
        return None if isinstance(value, bool) else "true or false"
    if isinstance(default, str):
        words = {default, *re.findall(r'"([^"]*)"', comment)}
        if len(words) > 1 and "" not in words:
            return None if value in words else f"one of {sorted(words)}"
        return None if isinstance(value, str) else "text"
    if isinstance(default, list):
        if not isinstance(value, list) or not value:
            return f"a list like {default} (an axis is a list of such lists)"
        return next(filter(None, (_allowed(part, default[0], "") for part in value)), None)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    said = re.search(r"\b(above|at least) (\d[\d.e-]*)", comment)
    least = float(said[2]) if said else min(default, 1) if isinstance(default, int) else -math.inf
    above = said is not None and said[1] == "above"
    kind, right = "a finite number", number and math.isfinite(value)
    if isinstance(default, int):
        kind, right = "a whole number", number and isinstance(value, int)
    if right and value >= least and not (above and value == least):
        return None
    advice = "; in YAML 1e-3 is text, write 1.0e-3" if isinstance(value, str) else ""
    bound = "" if least == -math.inf else f" {'above' if above else 'of at least'} {least:g}"
    return kind + bound + advice


def check(where: str | Path, notebook: str | Path, known: Schema, parameters: Mapping) -> None:
    """Refuses parameters that the notebook does not have, or cannot take; `where` holds them.

    Raises:
        ValueError: naming file, parameter, value, and what is allowed.
    """
    for name, value in parameters.items():
        if name not in known:
            listed = "".join(f"\n  {key} = {default!r}" for key, (default, _) in known.items())
            raise ValueError(f"{where}: {notebook} has no parameter {name!r}; it has{listed}")
        if allowed := _allowed(value, *known[name]):
            raise ValueError(f"{where}: {name} is {value!r}; it must be {allowed} ({notebook})")
    scenario = {field.name for field in fields(Network)} & known.keys()
    given = {name: parameters.get(name, known[name][0]) for name in scenario}
    try:
        Network(**given)
    except ValueError as error:
        raise ValueError(f"{where}: {error} ({notebook})") from None


def runs(where: str | Path, notebook: str | Path, known: Schema, grids: Any) -> list[dict]:
    """The runs of a list of grids, all combinations of the axes of each; all of them checked.

    Raises:
        ValueError: as `check`, or where a grid is no map, or an axis is empty.
    """
    found = []
    for grid in grids if isinstance(grids, list) else [grids]:
        if not isinstance(grid, dict):
            raise ValueError(
                f"{where}: a grid must map parameters to values or lists of values, not {grid!r}"
            )
        axes = [_values(value, known.get(name)) for name, value in grid.items()]
        for name, values in zip(grid, axes, strict=True):
            if not values:
                raise ValueError(
                    f"{where}: {name} is an empty list; an axis has at least one value"
                )
        for values in itertools.product(*axes):
            found.append(dict(zip(grid, values, strict=True)))
            check(where, notebook, known, found[-1])
    return found


def _values(value: Any, known: tuple[Any, str] | None) -> list:
    """The values of an axis: a list, or for a parameter that is a list itself, a list of lists."""
    item, default = value, known and known[0]
    while isinstance(item, list) and item and isinstance(default, list):
        item, default = item[0], default[0]
    return value if isinstance(item, list) and isinstance(value, list) else [value]


def unit(comment: str) -> str:
    """The unit that a parameter's comment names in brackets, with them, or "".

    >>> unit("σ₀² [W], against P_c of 43 dBm")
    ' [W]'
    """
    found = re.search(r"\[[^\]]*[^\W\d][^\]]*\]", comment)
    return f" {found[0]}" if found else ""
