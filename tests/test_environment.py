"""Foreign settings: what would change a result is refused or left out. More: test_everywhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import grids
import keras
import nbformat
import numpy as np
import papermill
import pytest
import settings
import yaml
from check_python import refusal

import nomalib
from nomalib import layers, learning
from nomalib.network import Network

ROOT = Path(__file__).parents[1]
CELL = """
n_users = 10  # M
n_draws = 200  # draws, at least 100
noise: float = 0.1  # σ₀² [W]
share = 0.5  # above 0
fading = "normal"  # or "rayleigh"
check = False  # whether to
sizes = [[1, 2], [3, 4]]  # (users, subchannels)
seed = 0
record = ""  # path; "" writes none
"""


@pytest.fixture
def notebook(tmp_path):
    def write(source):
        cell = nbformat.v4.new_code_cell(source, metadata={"tags": ["parameters"]})
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "tiny.ipynb")
        return tmp_path / "tiny.ipynb"

    return write


def runs(notebook, tmp_path, text):
    (tmp_path / "grid.yml").write_text(text, encoding="utf-8")
    grid = grids.load(tmp_path / "grid.yml")
    return grids.runs("grid.yml", "tiny.ipynb", grids.schema(notebook(CELL)), grid)


@pytest.mark.parametrize(
    "text, says",
    [
        ("n_users: []", "n_users is an empty list"),
        ("n_users:", "n_users is None; it must be a whole number of at least 1"),
        ("n_users: {a: 1}", r"n_users is {'a': 1}; it must be a whole number"),
        ("n_users: 10.5", "n_users is 10.5; it must be a whole number"),
        ("n_users: [1, true]", "n_users is True; it must be a whole number"),
        ("n_users: [[1, 2]]", r"n_users is \[1, 2\]; it must be a whole number"),
        ("n_users: 0", "n_users is 0; it must be a whole number of at least 1"),
        ("n_draws: 99", "n_draws is 99; it must be a whole number of at least 100"),
        ("seed: -1", "seed is -1; it must be a whole number of at least 0"),
        ("share: 0", "share is 0; it must be a finite number above 0"),
        ("noise: .nan", "noise is nan; it must be a finite number"),
        ("noise: [0.1, 1e-3]", "noise is '1e-3'; it must be a finite number; in YAML 1e-3 is text"),
        ("noise: -1.0", "noise is -1.0; it must be a number in"),  # as the Network says
        ("fading: rayliegh", r"fading is 'rayliegh'; it must be one of \['normal', 'rayleigh'\]"),
        ("check: 1", "check is 1; it must be true or false"),
        ("fading: no", "fading is False; it must be one of"),
        ("sizes: [1, 2]", r"sizes is \[1, 2\]; it must be a list like \[1, 2\]"),
        ("n_user: 3", "has no parameter 'n_user'; it has\n  n_users = 10"),
        ("- 3", "a grid must map parameters to values"),
        ("", "a grid must map parameters to values"),
        ("seed: 010", "YAML reads 010 as 8; write the number in digits"),
        ("seed: 1_0", "YAML reads 1_0 as 10"),
        ("noise: 1_0.0", "YAML reads 1_0.0 as 10.0"),
        ("seed: 1:30", "YAML reads 1:30 as 90"),
        ("seed: 1\nseed: 2", "seed stands there twice"),
        ("seed: [1", "grid.yml: while parsing"),
    ],
)
def test_a_grid_is_refused_before_anything_runs(notebook, tmp_path, text, says):
    with pytest.raises(ValueError, match=says) as error:
        runs(notebook, tmp_path, text)
    assert "grid.yml" in str(error.value)


def test_a_grid_gives_all_combinations(notebook, tmp_path):
    text = "seed: [0, 1]\nnoise: [1, 1.0e-3]\nsizes: [[[1, 2]], [[3, 4], [5, 6]]]\nn_users: 3"
    found = runs(notebook, tmp_path, text)
    assert len(found) == 8 and {run["n_users"] for run in found} == {3}
    assert found[-1] == {"seed": 1, "noise": 1e-3, "sizes": [[3, 4], [5, 6]], "n_users": 3}
    assert runs(notebook, tmp_path, "- seed: 1\n- seed: [2, 3]") == [{"seed": n} for n in (1, 2, 3)]


@pytest.mark.parametrize("source", ["n = 2 * 5", "a, b = 1, 2", "n: int", "n = m = 1", "import os"])
def test_a_parameter_is_a_plain_value(notebook, source):
    with pytest.raises(ValueError, match="must be one name = one plain value") as error:
        grids.schema(notebook(source))
    assert "tiny.ipynb" in str(error.value) and source in str(error.value)


def test_what_is_no_grid_or_notebook_is_named(tmp_path):
    with pytest.raises(ValueError, match="grid.yml is not there"):
        grids.load(tmp_path / "grid.yml")
    (tmp_path / "grid.yml").write_bytes(b"\xff")
    for read in (grids.load, grids.schema):
        with pytest.raises(ValueError, match="grid.yml"):
            read(tmp_path / "grid.yml")


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("book/**/[!.]*.ipynb")), ids=lambda path: path.stem
)
def test_every_notebook_keeps_its_own_schema(path):
    known = grids.schema(path)
    grids.check("its defaults", path.name, known, {n: value for n, (value, _) in known.items()})


@pytest.mark.parametrize(
    "given, says",
    [
        (((3, 11), "linux", "x86_64", ""), None),
        (((3, 13), "darwin", "arm64", ""), None),
        (((3, 10), "linux", "x86_64", ""), "3.11, 3.12 or 3.13 is needed, not 3.10"),
        (((3, 14), "linux", "x86_64", ""), "not 3.14"),
        (((3, 12), "win32", "AMD64", ""), "WSL"),
        (((3, 12), "darwin", "x86_64", ""), "Intel"),
        (((3, 11), "linux", "x86_64", "ensurepip"), "apt-get install python3.11-venv"),
    ],
)
def test_the_setup_refuses_in_one_sentence(given, says):
    said = refusal(*given)
    assert said is says is None or says in said


def test_the_pins_ask_for_no_patch_of_python():
    """Debian's 3.11.2 is to do."""
    from importlib.metadata import distributions

    asked = {d.metadata["Name"]: d.metadata.get("Requires-Python") or "" for d in distributions()}
    assert len(asked) > 100
    assert {n: rule for n, rule in asked.items() if re.search(r">=?\s*3\.11\.[1-9]", rule)} == {}


def test_a_foreign_setting_is_left_out(tmp_path):
    foreign = (
        "KERAS_MAX_EPOCHS KERAS_HOME JAX_ENABLE_X64 XLA_FLAGS NUMBA_OPT NPY_DISABLE_CPU_FEATURES"
    )
    foreign += " MPLBACKEND MATPLOTLIBRC JUPYTER_PATH IPYTHONDIR PYTHONOPTIMIZE PYTHONSTARTUP"
    kept = {"HOME": "/h", "PYTHONPATH": "p", "NUMBA_CACHE_DIR": "c", "PATH": "b"}
    environ = kept | dict.fromkeys(foreign.split(), "x")
    settings.isolate(environ, tmp_path)
    assert environ.items() >= kept.items() and "x" not in environ.values()
    assert environ["KERAS_HOME"] == str(tmp_path / "keras") and environ["PYTHONUTF8"] == "1"


def test_packages_from_elsewhere_are_seen(tmp_path, monkeypatch):
    assert settings.strangers("numpy", "jax") == {}
    (tmp_path / "strange.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert settings.strangers("numpy", "strange") == {"strange": str(tmp_path / "strange.py")}


@pytest.mark.parametrize(
    "change, back",
    [
        (lambda: keras.config.set_floatx("float16"), lambda: keras.config.set_floatx("float32")),
        (lambda: keras.config.set_max_epochs(1), lambda: keras.config.set_max_epochs(None)),
    ],
)
def test_keras_settings_that_change_a_training_are_refused(change, back):
    model, net, ones = learning.equivariant_network(), Network(1, 2), np.ones((1, 2))
    change()
    try:
        for call in (
            lambda: learning.maximise_sum_rate(model, [net]),
            lambda: learning.imitation_network(net),
            lambda: learning.allocate(model, net, ones, ones > 0),
        ):
            with pytest.raises(ValueError, match=r"keras.config.\w+\(\) is .* must be"):
                call()
    finally:
        back()
    layers.check_settings()


def python(code, **environ):
    """Exit code, and what a new Python says."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore:::numba", "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environ,
        capture_output=True,
        encoding="utf-8",
        timeout=200,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_package_is_a_map_of_its_modules():
    code = "import sys, nomalib; nomalib.rates.sum_rate; print(dir(nomalib), sys.modules.keys())"
    returncode, said = python(code)
    assert returncode == 0 and not re.search(r"'(keras|matplotlib|jax)'", said), said
    assert {"water_filling", "learning", "plots", "__version__"} <= set(dir(nomalib))
    assert not {"Path", "numba", "_compile"} & set(dir(nomalib))
    assert re.fullmatch(r"\d+\.\d+\.\d+", nomalib.__version__)
    with pytest.raises(AttributeError, match="'waterfilling'; it has .*'water_filling'"):
        nomalib.waterfilling  # noqa: B018


def test_where_nothing_can_be_written_kernels_compile_and_say_so():
    """The cache's folders cannot be made, below a file."""
    code = "from nomalib.subchannel import *; from nomalib import _compile"
    hidden = {"NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator"}
    returncode, said = python(code, NUMBA_CACHE_DIR="/dev/null/cache", **hidden)
    assert returncode == 0 and "set NUMBA_CACHE_DIR to a folder that can be" in said, said


def test_a_chapter_has_its_figures_whatever_matplotlib_is_told(tmp_path, monkeypatch):
    (tmp_path / "matplotlibrc").write_text("lines.linewidth: 9\n", encoding="utf-8")
    cells = [
        "from nomalib import plots\nplots.use_style()",
        "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nprint(plt.gca().lines[0].get_lw())",
    ]
    made = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, cells)))
    nbformat.write(made, tmp_path / "a.ipynb")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    options = {"kernel_name": "python3", "language": "python", "progress_bar": False}
    done = papermill.execute_notebook(tmp_path / "a.ipynb", None, cwd=tmp_path, **options)
    outputs = done.cells[1].outputs
    assert "image/svg+xml" in outputs[-1].data, outputs
    assert outputs[0].text == "1.8\n"  # the picture itself may hold any number


def test_text_is_read_and_written_as_utf8():
    """Whatever the locale; a call that does not say its encoding takes the locale's."""
    files = [*ROOT.glob("nomalib/*.py"), *ROOT.glob("tools/*.py"), *ROOT.glob("book/_ext/*.py")]
    files += [*ROOT.glob("book/**/[!.]*.ipynb"), ROOT / "Snakefile", *ROOT.glob(".ci/*.py")]
    calls = re.compile(r"(?:(?:read|write)_text|(?<![\w.])open|\.open)\((?:[^()]|\([^()]*\))*\)")
    for file in files:
        for call in calls.findall(file.read_text(encoding="utf-8")):
            assert "encoding" in call or re.search(r"""["'][rwa]?b["']""", call), (file.name, call)


def test_yaml_of_the_profiles_reads_as_it_is_written():
    for path in ROOT.glob("profiles/*.yml"):
        assert grids.load(path) == yaml.safe_load(path.read_text(encoding="utf-8"))
