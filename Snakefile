# Which notebook runs under which parameters, and what depends on what.
#
#   snakemake --config profile=quick       the book, at the sizes in profiles/quick.yml
#   snakemake sweep --config notebook=book/experiments/scenario.ipynb grid=my_grid.yml
#                                          one table of an experiment over a grid of your own
import csv
import hashlib
import itertools
import os
import sys
from pathlib import Path

import papermill
import yaml
from snakemake.exceptions import WorkflowError
from sphinx_external_toc.parsing import parse_toc_yaml

if "grid" in config:
    RUN = f"_runs/sweeps/{Path(config['grid']).stem}"
    NAME = Path(config["notebook"]).stem
    NOTEBOOKS = {NAME: config["notebook"]}
    PROFILE = {"experiments": {NAME: [yaml.safe_load(Path(config["grid"]).read_text())]}}
else:
    RUN = f"_runs/{config.get('profile', 'quick')}"
    PROFILE = yaml.safe_load(Path(f"profiles/{config.get('profile', 'quick')}.yml").read_text())
    NOTEBOOKS = {name: f"book/experiments/{name}.ipynb" for name in PROFILE["experiments"]}

PAGES = [Path(page) for page in parse_toc_yaml("_toc.yml")]
CHAPTERS = [page.name for page in PAGES if not page.with_suffix(".md").exists()]
BIN = Path(sys.executable).parent
SOURCES = ["requirements.txt", *map(str, sorted(Path("nomalib").glob("*.py")))]
PROSE = [
    str(path)
    for path in Path("book").rglob("*")
    if path.is_file() and path.suffix not in (".ipynb", ".pyc")
]

# One core for each job: the parallelism is in the number of jobs.
os.environ.update(
    OMP_NUM_THREADS="1",
    OPENBLAS_NUM_THREADS="1",
    NUMBA_NUM_THREADS="1",
    NPROC="1",  # XLA's thread pool
    XLA_FLAGS="--xla_cpu_multi_thread_eigen=false",
)


def defaults(notebook):
    """The parameters of a notebook and the source text of their defaults."""
    known = papermill.inspect_notebook(notebook)
    return {name: parameter["default"] for name, parameter in known.items()}


def check(notebook, *runs):
    """Papermill only logs an unknown parameter, and passes text on where a number belongs."""
    known = defaults(notebook)
    for name, value in itertools.chain(*(parameters.items() for parameters in runs)):
        if name not in known:
            listed = "".join(f"\n  {key} = {default}" for key, default in known.items())
            raise WorkflowError(f"{notebook} has no parameter {name!r}; it has{listed}")
        if isinstance(value, str) and known[name][0] not in "\"'":
            raise WorkflowError(
                f"{notebook}: {name} = {value!r} is text, but the default {known[name]} is not"
                " (in YAML write 1.0e-3 for 1e-3)"
            )


def cells(grid):
    """All combinations of the axes of a grid."""
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


onstart:
    # A reader takes all the records there are: those of runs no longer in the grid must go.
    for path in set(map(str, Path(RUN, "records").rglob("*.json"))).difference(*RECORDS.values()):
        os.remove(path)


rule book:
    input:
        PROSE,
        "_config.yml",
        "_toc.yml",
        chapters=[f"{RUN}/book/{name}.ipynb" for name in CHAPTERS],
    output:
        "_build/html/index.html",
    params:
        site=f"{RUN}/site",
    shell:
        """
        rm -rf {params.site} _build
        mkdir -p {params.site}
        cp -r _toc.yml book {params.site}
        cp {input.chapters} {params.site}/book
        sed 's/execute_notebooks: .*/execute_notebooks: "off"/' _config.yml > {params.site}/_config.yml
        {BIN}/jupyter-book build {params.site} --path-output . -W -n --keep-going
        """


rule chapter:
    input:
        lambda wildcards: sum(RECORDS.values(), []) if wildcards.name in READERS else [],
        SOURCES,
        notebook="book/{name}.ipynb",
    output:
        f"{RUN}/book/{{name}}.ipynb",
    params:
        lambda wildcards: in_yaml(PARAMETERS[wildcards.name]),
    message:
        "chapter {wildcards.name} {params[0]}"
    retries: 1  # kernels that start at once can race for a port
    shell:
        "{BIN}/papermill {input.notebook} {output} --cwd book -y {params[0]:q}"
        " --no-progress-bar --log-level WARNING"


rule experiment:
    input:
        SOURCES,
        notebook=lambda wildcards: NOTEBOOKS[wildcards.name],
    output:
        record=f"{RUN}/records/{{name}}/{{key}}.json",
        notebook=f"{RUN}/experiments/{{name}}/{{key}}.ipynb",
    params:
        lambda wildcards: in_yaml(RUNS[wildcards.name][wildcards.key]),
    message:
        "experiment {wildcards.name} {params[0]}"
    retries: 1
    shell:
        "{BIN}/papermill {input.notebook} {output.notebook} -p record {output.record}"
        " -y {params[0]:q} --no-progress-bar --log-level WARNING"


rule table:
    input:
        lambda wildcards: RECORDS[wildcards.name],
    output:
        f"{RUN}/{{name}}.csv",
    run:
        from nomalib import records

        rows = records.table(input)
        with open(output[0], "w", newline="") as file:
            writer = csv.DictWriter(file, dict.fromkeys(itertools.chain(*rows)))
            writer.writeheader()
            writer.writerows(rows)


rule sweep:
    input:
        [f"{RUN}/{name}.csv" for name in RUNS],
