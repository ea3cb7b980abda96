# Which notebook runs under which parameters, and what depends on what: a profile holds grids, each
# combination of a grid is a run with a record, chapters read the records, and make up the book.
#
#   snakemake --config profile=quick       the book, at the sizes in profiles/quick.yml
#   snakemake sweep --config notebook=book/experiments/scenario.ipynb grid=my_grid.yml
#                                          table and plot of an experiment over a grid of your own
import ast
import fcntl
import hashlib
import itertools
import json
import os
import shutil
import sys
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError
from sphinx_external_toc.parsing import parse_toc_yaml

from nomalib import records

BIN = Path(sys.executable).parent

# One core for each job: the parallelism is in the number of jobs.
os.environ.update(
    OMP_NUM_THREADS="1",
    OPENBLAS_NUM_THREADS="1",
    NUMBA_NUM_THREADS="1",
    NPROC="1",  # XLA's thread pool
    XLA_FLAGS="--xla_cpu_multi_thread_eigen=false",
)

# The profile: grids for the experiments, and parameters for the chapters.
KEYS = {"profile", "notebook", "grid", "metric"}
if not set(config) <= KEYS or ("grid" in config) != ("notebook" in config):
    raise WorkflowError(
        f"--config has {sorted(config)}; it takes profile, or notebook and grid together, and metric"
    )
SWEEP = "grid" in config
if SWEEP:
    RUN = f"_runs/sweeps/{Path(config['grid']).stem}"
    NAME = Path(config["notebook"]).stem
    NOTEBOOKS = {NAME: config["notebook"]}
    PROFILE = {"experiments": {NAME: [yaml.safe_load(Path(config["grid"]).read_text())]}}
else:
    RUN = f"_runs/{config.get('profile', 'quick')}"
    NOTEBOOKS = {path.stem: str(path) for path in sorted(Path("book/experiments").glob("*.ipynb"))}
    chosen = Path(f"profiles/{config.get('profile', 'quick')}.yml")
    PROFILE = yaml.safe_load(chosen.read_text()) if chosen.is_file() else {}
    if set(PROFILE.get("experiments", {})) != set(NOTEBOOKS):
        raise WorkflowError(f"{chosen} must be there and hold a grid for each of {list(NOTEBOOKS)}")


def defaults(notebook):
    """Source text of the default of each parameter of a notebook, by name."""
    cells = json.loads(Path(notebook).read_text())["cells"]
    tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    if len(tagged) != 1:
        raise WorkflowError(f"{notebook} has {len(tagged)} cells tagged 'parameters', not one")
    assigned = [s for s in ast.parse("".join(tagged[0]["source"])).body if hasattr(s, "targets")]
    return {statement.targets[0].id: ast.unparse(statement.value) for statement in assigned}


def kind(value):
    return next((k for k in (bool, str) if isinstance(value, k)), "a number or a list")


def check(notebook, *runs):
    """Papermill only logs an unknown parameter, and passes text on where a number belongs."""
    known = defaults(notebook)
    for name, value in itertools.chain(*(parameters.items() for parameters in runs)):
        if name not in known:
            listed = "".join(f"\n  {key} = {default}" for key, default in known.items())
            raise WorkflowError(f"{notebook} has no parameter {name!r}; it has{listed}")
        if kind(value) != kind(ast.literal_eval(known[name])):
            raise WorkflowError(
                f"{notebook}: {name} is {value!r}, of another kind than its default {known[name]}"
                " (in YAML 1e-3 is text; write 1.0e-3)"
            )


def cells(grid):
    """All combinations of the axes of a grid."""
    if not isinstance(grid, dict):
        raise WorkflowError(f"a grid must map parameters to values or lists of values, not {grid!r}")
    axes = [value if isinstance(value, list) else [value] for value in grid.values()]
    return [dict(zip(grid, values)) for values in itertools.product(*axes)]


def in_yaml(parameters):
    """On one line. JSON would write 1e-05, which is text in YAML."""
    return yaml.safe_dump(parameters, default_flow_style=True, width=float("inf")).strip()


# The runs: each is named by the hash of its parameters, so that its record stays valid however the
# grid grows.
RUNS, RECORDS = {}, {}
for name, grids in PROFILE["experiments"].items():
    asked = {in_yaml(cell): cell for grid in grids for cell in cells(grid)}
    check(NOTEBOOKS[name], {"record": ""}, *asked.values())
    RUNS[name] = {hashlib.sha256(text.encode()).hexdigest()[:12]: text for text in asked}
    RECORDS[name] = [f"{RUN}/records/{name}/{key}.json" for key in RUNS[name]]

# The chapters: notebooks in the table of contents. One that has a parameter `records` reads the
# records of all experiments; its folder is relative to book/, where chapters run.
PAGES = [Path(page) for page in parse_toc_yaml("_toc.yml")]
CHAPTERS = {page.name: {} for page in PAGES if not page.with_suffix(".md").exists()}
READERS = [name for name in CHAPTERS if "records" in defaults(f"book/{name}.ipynb")]
CHAPTERS |= {name: {"records": f"../{RUN}/records"} for name in READERS}
for name, parameters in PROFILE.get("chapters", {}).items():
    check(f"book/{name}.ipynb", parameters)
    CHAPTERS[name] |= parameters

if workflow.is_main_process and not workflow.dryrun:
    # One call at a time. Snakemake's own lock outlives kill -9; this one goes with its process.
    Path(RUN).mkdir(parents=True, exist_ok=True)
    lock = Path(RUN if SWEEP else "_runs", "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise WorkflowError(f"another call is at work in {RUN}; wait until it has ended") from None
    shutil.rmtree(f"{RUN}/xla", ignore_errors=True)
    left = {str(path) for path in Path(RUN).glob("*/**/*.ipynb.*")}  # by a call that was killed
    if not SWEEP:  # A chapter would read records of runs that are not asked for any more.
        left |= set(map(str, Path(RUN).glob("records/*/*.json"))) - {*sum(RECORDS.values(), [])}
    for path in left:
        Path(path).unlink()


def content(*files):
    """What a rule is made by; dates are not. (Snakemake ignores a parameter by `input`.)"""
    return hashlib.sha256(b"".join(Path(file).read_bytes() for file in files)).hexdigest()[:16]


def code(*files):
    return f"{records.source_hash()[:16]}-{content('requirements.txt', *files)}"


PROSE = [str(path) for path in Path("book").rglob("*.*") if path.is_file()]
PROSE = ["_config.yml", "_toc.yml", *sorted(p for p in PROSE if not p.endswith((".ipynb", ".pyc")))]


localrules: book, table, sweep


rule book:
    input: ancient(PROSE), chapters=[f"{RUN}/book/{name}.ipynb" for name in CHAPTERS]
    output: "_build/html/index.html"
    params: site=f"{RUN}/site", made_by=content(*PROSE)
    message: "building the site"
    shell:
        """
        rm -rf {params.site} _build && mkdir -p {params.site}
        cp -r _toc.yml book nomalib {params.site}
        cp {input.chapters} {params.site}/book
        sed 's/execute_notebooks: .*/execute_notebooks: "off"/' _config.yml > {params.site}/_config.yml
        {BIN}/jupyter-book build {params.site} --path-output . -W -n --keep-going
        """


# Numba compiles each kernel once, about a minute in all. Were every first job to do it, all cores
# would compile the same; so one process runs the package's doctests, which call all kernels. Named
# by the sources: one file for all would be made again, and what depends on it not looked at.
rule kernels:
    output: touch(f"_runs/kernels/{code()}")
    message: "compiling nomalib"
    shell: "{BIN}/pytest --quiet --doctest-modules nomalib"


# Papermill saves after every cell. Under another name until it is done: what is there, is whole,
# even if the run it belongs to was killed and goes on without its parent.
PAPERMILL = """
    JPY_SESSION_NAME={input.notebook:q} {BIN}/papermill {input.notebook:q} {output.notebook:q}.$$.ipynb \
        -y {params[0]:q} --no-progress-bar --log-level WARNING"""
MOVE = """
    mv {output.notebook:q}.$$.ipynb {output.notebook:q}"""

# What XLA compiles in one run serves the others of the same shapes: half the time of a short one.
# Machine code, so for this machine; and for this call, as it is not written all or nothing.
XLA_CACHE = f"""
    export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0
    export JAX_COMPILATION_CACHE_DIR="$PWD/{RUN}/xla/$(uname -n)\""""


rule chapter:
    input:
        ancient(rules.kernels.output),
        lambda wildcards: sum(RECORDS.values(), []) if wildcards.name in READERS else [],
        notebook=ancient("book/{name}.ipynb"),
    output: notebook=f"{RUN}/book/{{name}}.ipynb"
    params:
        lambda wildcards: in_yaml(CHAPTERS[wildcards.name]),
        made_by=lambda wildcards: code("nomalib/plots.py", f"book/{wildcards.name}.ipynb"),
    message: "chapter {wildcards.name} {params[0]}"
    retries: 1  # kernels that start at once can race for a port
    shell: PAPERMILL + " --cwd book" + MOVE


rule experiment:
    input: ancient(rules.kernels.output), notebook=ancient(lambda run: NOTEBOOKS[run.name])
    output:
        record=f"{RUN}/records/{{name}}/{{key}}.json",
        notebook=f"{RUN}/experiments/{{name}}/{{key}}.ipynb",
    params:
        lambda wildcards: RUNS[wildcards.name][wildcards.key],
        made_by=lambda wildcards: code(NOTEBOOKS[wildcards.name]),
    message: "experiment {wildcards.name} {params[0]}"
    priority: 1  # readers wait for them
    retries: 1
    shell: XLA_CACHE + PAPERMILL + " -p record {output.record:q}" + MOVE


rule table:
    input: lambda wildcards: RECORDS[wildcards.name]
    output: table=f"{RUN}/{{name}}.csv", plot=f"{RUN}/{{name}}.png"
    params: metric=config.get("metric", "sum_rate")
    message: "{output}"
    run:
        from nomalib import plots

        rows, (grid, *_) = records.table(input), PROFILE["experiments"][wildcards.name]
        Path(output.table).write_text(records.csv_text(rows), encoding="utf-8")
        axes = [name for name in grid if isinstance(grid[name], list)]
        plots.first_look(rows, axes, params.metric).savefig(output.plot)


rule sweep:
    input: [f"{RUN}/{name}.csv" for name in RUNS]
    message: "made {input}"
