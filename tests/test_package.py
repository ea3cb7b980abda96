"""The package's shape: imports go one way, the numerical core is light, nothing is evaluated."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import nomalib

FILES = list(Path(nomalib.__file__).parent.glob("*.py"))
SOURCES = {path.stem: ast.parse(path.read_text()) for path in FILES}
HEAVY = {"keras", "jax", "matplotlib", "papermill", "tensorflow", "torch"}


def imported(module):
    """What a source imports, wherever it stands: `a.b`, for `from a import b` too."""
    found = set()
    for node in ast.walk(SOURCES[module]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own(module):
    names = {name.split(".")[1] for name in imported(module) if name.startswith("nomalib.")}
    return names & set(SOURCES)


def reached(module):
    """The module and all modules of the package that it imports, directly or not."""
    found, new = set(), {module}
    while new:
        found |= new
        new = set().union(*map(own, new)) - found
    return found


def test_imports_go_one_way():
    order = list(TopologicalSorter({module: own(module) for module in SOURCES}).static_order())
    assert set(order) == set(SOURCES)
    assert not own("__init__")
    assert own("network") == {"_checks"}


def test_the_numerical_core_is_light():
    core = ("baselines", "derivatives", "interior_point", "joint_bound", "matching", "optimum")
    for name in set().union(*map(reached, core)):
        assert not {package.split(".")[0] for package in imported(name)} & HEAVY, name


def test_the_map_names_every_module():
    for module in set(SOURCES) - {"__init__"}:
        assert re.search(rf"(?<![\w.]){module}(?!\w)", nomalib.__doc__), module


def test_the_core_is_read_in_one_sitting():
    lines = {path.stem: len(path.read_text().splitlines()) for path in FILES}
    core = "network rates polytope subchannel water_filling interior_point _central_path"
    core = f"{core} matching learning".split()
    assert sum(lines[module] for module in core) <= 1900
    assert max(lines.values()) <= 250, lines


def test_no_function_is_long_and_no_kernel_takes_many_arguments():
    for module, tree in SOURCES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{module}.{node.name}"
                if {"compiled", "inlined"} & set(map(ast.unparse, node.decorator_list)):
                    assert len(node.args.args) <= 8, f"{module}.{node.name}"


def test_public_names_are_listed_where_they_are():
    for module, tree in SOURCES.items():
        listed = [n for n in tree.body if "__all__" in ast.unparse(n).split("=")[0]]
        assert bool(listed) != module.startswith("_"), module


def test_the_feasible_set_knows_no_allocator():
    allocators = {module for module in SOURCES if "def allocate(" in ast.unparse(SOURCES[module])}
    assert {"water_filling", "interior_point", "optimum", "learning"} <= allocators
    assert not reached("polytope") & allocators
