# Which notebook runs under which parameters, and what depends on what.
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
import time
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError
from sphinx_external_toc.parsing import parse_toc_yaml

from nomalib import records

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

PAGES = [Path(page) for page in parse_toc_yaml("_toc.yml")]
CHAPTERS = [page.name for page in PAGES if not page.with_suffix(".md").exists()]
BIN = Path(sys.executable).parent
SOURCES = ["requirements.txt", *map(str, sorted(Path("nomalib").glob("*.py")))]
NUMERICS = [source for source in SOURCES if source != "nomalib/plots.py"]
PROSE = [
    str(path)
    for path in Path("book").rglob("*")
    if path.is_file() and path.suffix not in (".ipynb", ".pyc")
]


def content(*paths):
    """What a rule is made by. Dates do not say it: a checkout or a clock set back changes them."""
    return hashlib.sha256(b"".join(map(Path.read_bytes, map(Path, paths)))).hexdigest()[:16]


# Modules with compiled functions, each after the one whose functions it calls, or which calls the
# same: at once, both would compile them. Two chains, of about a minute each.
COMPILED = {
    "interior_point": [],
    "optimum": ["interior_point"],
    "matching": [],
    "learning": ["matching"],
    "deployed": ["learning"],
}
# Named by the sources: were they there when these change, Snakemake would run them again and not
# look whether what depends on them is stale too.
COMPILED_BY = f"{RUN}/kernels/{content(*NUMERICS)}"
KERNELS = [f"{COMPILED_BY}/{module}" for module in COMPILED]

# One core for each job: the parallelism is in the number of jobs.
os.environ.update(
    OMP_NUM_THREADS="1",
    OPENBLAS_NUM_THREADS="1",
    NUMBA_NUM_THREADS="1",
    NPROC="1",  # XLA's thread pool
    XLA_FLAGS="--xla_cpu_multi_thread_eigen=false",
)


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


# A run is named by the hash of its parameters: its record stays valid however the grid grows.
RUNS = {
    name: {
        hashlib.sha256(in_yaml(cell).encode()).hexdigest()[:12]: cell
        for grid in grids
        for cell in cells(grid)
    }
    for name, grids in PROFILE["experiments"].items()
}
RECORDS = {name: [f"{RUN}/records/{name}/{key}.json" for key in RUNS[name]] for name in RUNS}

for name, runs in RUNS.items():
    check(NOTEBOOKS[name], {"record": ""}, *runs.values())
for name, parameters in PROFILE.get("chapters", {}).items():
    check(f"book/{name}.ipynb", parameters)

# A chapter that has a parameter `records` reads the records of all experiments.
PARAMETERS = {name: PROFILE.get("chapters", {}).get(name, {}) for name in CHAPTERS}
READERS = [name for name in CHAPTERS if "records" in defaults(f"book/{name}.ipynb")]
for name in READERS:
    # relative to book/, where chapters run
    PARAMETERS[name] = PARAMETERS[name] | {"records": f"../{RUN}/records"}


def is_whole(path):
    """Whether a record or an executed notebook is all there."""
    try:
        if path.suffix == ".json":
            records.read(path)
        else:
            run = json.loads(path.read_text())["metadata"]["papermill"]
            return bool(run["end_time"]) and not run["exception"]
    except (ValueError, KeyError):
        return False
    return True


# Snakemake trusts a file that is there. Here one that is damaged, or of a run that is not asked
# for any more (a reader takes all records there are), goes before it looks. One from before the
# clock was set back would stay newer than all that is made after it.
WANTED = {
    *itertools.chain(*RECORDS.values()),
    *(f"{RUN}/experiments/{name}/{key}.ipynb" for name in RUNS for key in RUNS[name]),
    *(f"{RUN}/book/{name}.ipynb" for name in CHAPTERS),
}


def is_companion(path):
    """Whether a run left it beside its record: a trained network, or how far its training came."""
    part, name, file, *_ = *path.relative_to(RUN).parts, ""
    mine = part == "records" and file.split(".")[0] in RUNS.get(name, {})
    return mine and str(path) not in WANTED


def tidy():
    shutil.rmtree(Path(RUN, "xla"), ignore_errors=True)
    made = [path for part in ("records", "experiments", "book") for path in Path(RUN, part).rglob("*")]
    for path in filter(Path.is_file, made):
        # what another grid of the same name asked for stays: it took time, and no chapter reads it
        asked_for = SWEEP or str(path) in WANTED
        if not (is_companion(path) or asked_for and is_whole(path)):
            print(f"Removing {path}: not whole, or not asked for any more", file=sys.stderr)
            path.unlink()
    for path in filter(Path.is_file, [*made, Path("_build/html/index.html")]):
        if path.stat().st_mtime > time.time():
            print(f"{path} is dated in the future: dated now", file=sys.stderr)
            os.utime(path)


if workflow.is_main_process:
    # Snakemake's own lock outlives kill -9. This one goes with its process.
    Path(RUN).mkdir(parents=True, exist_ok=True)
    alone = Path(RUN if SWEEP else "_runs", "lock").open("w")
    try:
        fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise WorkflowError(f"another call is at work in {RUN}; wait until it has ended") from None
    if not workflow.dryrun:
        tidy()


localrules: book, table, plot, sweep


rule book:
    input:
        ancient(PROSE),
        ancient(["_config.yml", "_toc.yml"]),
        chapters=[f"{RUN}/book/{name}.ipynb" for name in CHAPTERS],
    output:
        "_build/html/index.html",
    params:
        site=f"{RUN}/site",
        made_by=content("_config.yml", "_toc.yml", *PROSE),
    message:
        "building the site"
    shell:
        """
        rm -rf {params.site} _build
        mkdir -p {params.site}
        cp -r _toc.yml book nomalib {params.site}
        cp {input.chapters} {params.site}/book
        sed 's/execute_notebooks: .*/execute_notebooks: "off"/' _config.yml > {params.site}/_config.yml
        {BIN}/jupyter-book build {params.site} --path-output . -W -n --keep-going
        """


# Numba compiles each kernel once, which takes a minute or two in all. Were every first job to do
# it, all cores would compile the same ones; so the modules' doctests do, beforehand.
rule kernels:
    input:
        ancient(NUMERICS),
        ancient(lambda wildcards: expand(f"{COMPILED_BY}/{{m}}", m=COMPILED[wildcards.module])),
    output:
        touch(f"{COMPILED_BY}/{{module}}"),
    message:
        "compiling nomalib.{wildcards.module}"
    shell:
        "{BIN}/python -c 'import doctest, nomalib.{wildcards.module} as module;"
        " raise SystemExit(doctest.testmod(module).failed)'"


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
        ancient(KERNELS),
        ancient(SOURCES),
        lambda wildcards: sum(RECORDS.values(), []) if wildcards.name in READERS else [],
        notebook=ancient("book/{name}.ipynb"),
    output:
        notebook=f"{RUN}/book/{{name}}.ipynb",
    params:
        lambda wildcards: in_yaml(PARAMETERS[wildcards.name]),
        made_by=lambda wildcards: content(*SOURCES, f"book/{wildcards.name}.ipynb"),
    message:
        "chapter {wildcards.name} {params[0]}"
    retries: 1  # kernels that start at once can race for a port
    shell:
        PAPERMILL + " --cwd book" + MOVE


rule experiment:
    input:
        ancient(KERNELS),
        ancient(NUMERICS),
        notebook=ancient(lambda wildcards: NOTEBOOKS[wildcards.name]),
    output:
        record=f"{RUN}/records/{{name}}/{{key}}.json",
        notebook=f"{RUN}/experiments/{{name}}/{{key}}.ipynb",
    params:
        lambda wildcards: in_yaml(RUNS[wildcards.name][wildcards.key]),
        made_by=lambda wildcards: content(*NUMERICS, NOTEBOOKS[wildcards.name]),
    message:
        "experiment {wildcards.name} {params[0]}"
    priority: 1  # readers wait for them
    retries: 1
    shell:
        XLA_CACHE + PAPERMILL + " -p record {output.record:q}" + MOVE


rule table:
    input:
        lambda wildcards: RECORDS[wildcards.name],
    output:
        f"{RUN}/{{name}}.csv",
    message:
        "table {output}"
    run:
        Path(output[0]).write_text(records.csv_text(records.table(input)), encoding="utf-8")


# A first look: a panel for each metric whose name holds the given word, over the grid's first axis.
rule plot:
    input:
        lambda wildcards: RECORDS[wildcards.name],
    output:
        f"{RUN}/{{name}}.png",
    params:
        metric=config.get("metric", ""),
    message:
        "plot {output}"
    run:
        import matplotlib.pyplot as plt
        from nomalib import plots

        rows, grid = records.table(input), PROFILE["experiments"][wildcards.name][0]
        axes = [name for name in grid if isinstance(grid[name], list)] or ["seed"]
        numbers = [name for name in rows[0] if kind(rows[0][name]) == "a number or a list"]
        numbers = [name for name in numbers if name not in axes and not isinstance(rows[0][name], list)]
        shown = [name for name in numbers if (params.metric or "sum_rate") in name]
        shown = shown or [name for name in numbers if name not in defaults(NOTEBOOKS[wildcards.name])]
        lines = {}
        for row in rows:
            others = ", ".join(f"{name} = {row[name]}" for name in axes[1:])
            lines.setdefault(others, []).append(row)
        plots.use_style()
        columns = min(3, len(shown))
        size = 3.2 * columns, 2.6 * -(-len(shown) // columns) + 0.5
        fig, panels = plt.subplots(-(-len(shown) // columns), columns, figsize=size, squeeze=False)
        for panel, metric in zip(panels.flat, shown):
            for others, found in lines.items():
                at = sorted((row[axes[0]], row[metric]) for row in found)
                panel.plot(*zip(*at), "o-", label=others or None)
            panel.set(title=metric, xlabel=axes[0])
        for panel in panels.flat[len(shown) :]:
            panel.remove()
        if len(lines) > 1:
            fig.legend(*panels.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
        fig.savefig(output[0])


rule sweep:
    input:
        [f"{RUN}/{name}.{ending}" for name in RUNS for ending in ("csv", "png")],
    message:
        "made {input}"
