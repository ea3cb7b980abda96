"""The package's shape: imports go one way, the numerical core is light, nothing is evaluated."""

import ast
from pathlib import Path

import pytest

import nomalib

SOURCES = {
    path.stem: ast.parse(path.read_text()) for path in Path(nomalib.__file__).parent.glob("*.py")
}
HEAVY = {"keras", "jax", "matplotlib", "papermill", "tensorflow", "torch"}
# the modules that exist for one of these
MAY_IMPORT = {
    "layers": {"keras", "jax"},
    "learning": {"keras", "jax"},
    "complexity": {"keras", "jax"},
    "counting": {"keras", "jax"},
    "plots": {"matplotlib"},
}
# A module imports only modules of lower layers.
LAYERS = [
    {"network", "records", "plots", "counting"},
    {"rates", "baselines", "polytope"},
    {"water_filling", "central_path", "derivatives", "layers"},
    {"interior_point"},
    {"optimum", "joint_bound", "swaps"},
    {"matching", "learning"},
    {"complexity"},
]


def imported(tree):
    """Modules of all imports of a source, wherever they stand: `a.b`, for `from a import b` too."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own(tree):
    names = {name.split(".")[1] for name in imported(tree) if name.startswith("nomalib.")}
    return names & set(SOURCES)


def test_every_module_has_a_layer():
    listed = [module for layer in LAYERS for module in layer]
    assert len(listed) == len(set(listed))
    assert set(listed) == set(SOURCES) - {"__init__"}


@pytest.mark.parametrize("module", sorted(set(SOURCES) - {"__init__"}))
def test_imports_go_one_way(module):
    place = next(number for number, layer in enumerate(LAYERS) if module in layer)
    allowed = set().union(*LAYERS[:place]) if place else set()
    assert own(SOURCES[module]) <= allowed


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_the_numerical_core_is_light(module):
    outside = {name.split(".")[0] for name in imported(SOURCES[module])}
    assert outside & HEAVY <= MAY_IMPORT.get(module, set())


def test_the_package_itself_imports_none_of_its_modules():
    assert not own(SOURCES["__init__"])


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_nothing_is_evaluated_or_unpickled(module):
    assert not imported(SOURCES[module]) & {"pickle", "dill", "marshal", "shelve"}
    called = {
        node.func.id
        for node in ast.walk(SOURCES[module])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & {"eval", "exec", "compile", "__import__"}
