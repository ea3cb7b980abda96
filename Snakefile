# Which notebook runs under which parameters, and what depends on what: a profile holds grids, each
# combination of a grid is a run with a record, chapters read the records, and make up the book.
#
#   snakemake --config profile=quick       the book, at the sizes in profiles/quick.yml
#   snakemake sweep --config notebook=book/experiments/scenario.ipynb grid=my_grid.yml
#                                          table and plot of an experiment over a grid of your own
import fcntl
import hashlib
import os
import shutil
import sys
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError
from sphinx_external_toc.parsing import parse_toc_yaml

sys.path.insert(0, str(Path(workflow.basedir, "tools")))
import grids
import notebook
import settings

settings.isolate(os.environ, Path("_runs/settings"))
os.environ.update(settings.ONE_CORE)
if sys.getfilesystemencoding() != "utf-8":  # by the locale; now that of the environment is
    os.execv(sys.executable, [sys.executable, "-m", "snakemake", *sys.argv[1:]])
if " " in sys.executable:  # which Snakemake does not quote
    sys.executable = settings.without_space(Path("_runs/settings/environment"))
if strange := settings.strangers("numpy", "scipy", "numba", "keras", "jax", "papermill"):
    raise WorkflowError(f"PYTHONPATH brings packages from outside of {sys.prefix}: {strange}; unset it")

from nomalib import records

BIN = Path(sys.prefix, "bin")


def said(call, *arguments):
    """The call's result; an error is said in a sentence, without a traceback."""
    try:
        return call(*arguments)
    except ValueError as error:
        raise WorkflowError(str(error)) from None


# The profile: grids for the experiments, and parameters for the chapters.
KEYS = {"profile", "notebook", "grid", "metric"}
if not set(config) <= KEYS or ("grid" in config) != ("notebook" in config):
    raise WorkflowError(
        f"--config has {sorted(config)}; it takes profile, or notebook and grid together, and metric"
    )
SWEEP = "grid" in config
if SWEEP:
    RUN, WHERE = f"_runs/sweeps/{Path(config['grid']).stem}", config["grid"]
    NAME = Path(config["notebook"]).stem
    NOTEBOOKS = {NAME: config["notebook"]}
    PROFILE = {"experiments": {NAME: [said(grids.load, WHERE)]}}
else:
    RUN = f"_runs/{config.get('profile', 'quick')}"
    NOTEBOOKS = {path.stem: str(path) for path in sorted(Path("book/experiments").glob("*.ipynb"))}
    WHERE = f"profiles/{config.get('profile', 'quick')}.yml"
    PROFILE = (said(grids.load, WHERE) if Path(WHERE).is_file() else None) or {}
    if set(PROFILE.get("experiments", {})) != set(NOTEBOOKS):
        raise WorkflowError(f"{WHERE} must be there and hold a grid for each of {list(NOTEBOOKS)}")


def may_run(outcome):
    """Whether a run has not failed, or not for a reason that stays."""
    return not (reason := notebook.why(outcome)) or not notebook.will_recur(reason)


def in_yaml(parameters):
    """On one line. JSON would write 1e-05, which is text in YAML."""
    return yaml.safe_dump(parameters, default_flow_style=True, width=float("inf")).strip()


# The runs: each is named by the hash of its parameters, so that its record stays valid however the
# grid grows.
RUNS, RECORDS = {}, {}
for name, asked in PROFILE["experiments"].items():
    known = said(grids.schema, NOTEBOOKS[name])
    runs = said(grids.runs, WHERE, NOTEBOOKS[name], known, asked)
    said(grids.check, NOTEBOOKS[name], NOTEBOOKS[name], known, {"record": ""})
    RUNS[name] = {hashlib.sha256(text.encode()).hexdigest()[:12]: text for text in map(in_yaml, runs)}
    RECORDS[name] = [f"{RUN}/records/{name}/{key}.json" for key in RUNS[name]]
OUTCOMES = [f"{RUN}/experiments/{name}/{key}.ipynb" for name in RUNS for key in RUNS[name]]

# The chapters: notebooks in the table of contents. One that has a parameter `records` reads the
# records of all experiments; its folder is relative to book/, where chapters run.
PAGES = [Path(page) for page in parse_toc_yaml("_toc.yml")]
CHAPTERS = {page.name: {} for page in PAGES if not page.with_suffix(".md").exists()}
SCHEMAS = {name: said(grids.schema, f"book/{name}.ipynb") for name in CHAPTERS}
READERS = [name for name in CHAPTERS if "records" in SCHEMAS[name]]
CHAPTERS |= {name: {"records": f"../{RUN}/records"} for name in READERS}
for name, parameters in PROFILE.get("chapters", {}).items():
    said(grids.check, WHERE, f"book/{name}.ipynb", SCHEMAS[name], parameters)
    CHAPTERS[name] |= parameters

if workflow.is_main_process and not workflow.dryrun:
    # One call at a time. Snakemake's own lock outlives kill -9; this one goes with its process.
    Path(RUN).mkdir(parents=True, exist_ok=True)
    lock = Path(RUN if SWEEP else "_runs", "lock").open("wb")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise WorkflowError(f"another call is at work in {RUN}; wait until it has ended") from None
    shutil.rmtree(f"{RUN}/xla", ignore_errors=True)
    left = {str(path) for path in Path(RUN).glob("*/**/*.*.ipynb")}  # by a call that was killed
    if SWEEP:  # A run without a record has lost it, or failed; for the machine's sake, maybe.
        kept = [pair for pair in zip(OUTCOMES, RECORDS[NAME]) if Path(pair[0]).exists()]
        left |= {path for path, record in kept if not Path(record).exists() and may_run(path)}
    else:  # A chapter would read records of runs that are not asked for any more.
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


rule book:
    localrule: True
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
        {BIN:q}/jupyter-book build {params.site} --path-output . -W -n --keep-going
        """


# Numba compiles each kernel once, about a minute in all. Were every first job to do it, all cores
# would compile the same; so doctests run first, which call the kernels, of all modules without
# Keras. Named by the sources: one file for all would be made again, and what depends on it not
# looked at.
rule kernels:
    output: touch(f"_runs/kernels/{code()}")
    message: "compiling nomalib"
    threads: 2
    shell:
        "{BIN:q}/pytest --quiet --doctest-modules $(grep -L keras nomalib/*.py) --numprocesses {threads} \
            --dist worksteal"


# A notebook that fails does so again; what is tried again is one that was killed. (With something
# to do after it, bash stays, and says that.)
RUNNER = """
    {BIN:q}/python {workflow.basedir:q}/tools/notebook.py {input.notebook:q} {output.notebook:q} \
        {params[0]:q} --attempt {resources.attempt}"""

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
    priority: lambda wildcards: os.path.getsize(f"book/{wildcards.name}.ipynb")  # long ones first
    resources: attempt=lambda wildcards, attempt: attempt
    retries: 1  # kernels that start at once can race for a port
    shell: XLA_CACHE + RUNNER + " --cwd book || exit"


rule experiment:
    input: ancient(rules.kernels.output), notebook=ancient(lambda run: NOTEBOOKS[run.name])
    output:
        # in a sweep, a failure is an outcome too, and has no record
        **({} if SWEEP else {"record": f"{RUN}/records/{{name}}/{{key}}.json"}),
        notebook=f"{RUN}/experiments/{{name}}/{{key}}.ipynb",
    params:
        lambda wildcards: RUNS[wildcards.name][wildcards.key],
        record=lambda wildcards: f"{RUN}/records/{wildcards.name}/{wildcards.key}.json",
        made_by=lambda wildcards: code(NOTEBOOKS[wildcards.name]),
    message: "experiment {wildcards.name} {params[0]}"
    priority: 1_000_000  # readers wait for them
    resources: attempt=lambda wildcards, attempt: attempt
    retries: 1
    shell: XLA_CACHE + RUNNER + " --record {params.record:q}" + " --outcome" * SWEEP + " || exit"


if SWEEP:

    rule sweep:
        localrule: True
        input: OUTCOMES
        params: metric=config.get("metric", "sum_rate")
        message: "table, plot, and what did not run"
        run:
            from nomalib import plots

            rows = records.table(filter(os.path.exists, RECORDS[NAME]))
            Path(f"{RUN}/{NAME}.csv").write_text(records.csv_text(rows), encoding="utf-8")
            given = [yaml.safe_load(text) for text in RUNS[NAME].values()]
            axes = [name for name in given[0] if len({str(run.get(name)) for run in given}) > 1]
            units = {name: grids.unit(comment) for name, (_, comment) in known.items()}
            plots.first_look(rows, axes, params.metric, units).savefig(f"{RUN}/{NAME}.png")
            reasons = dict(zip(RUNS[NAME].values(), map(notebook.why, OUTCOMES)))
            failed = [f"{given}: {reason}\n" for given, reason in reasons.items() if reason]
            Path(f"{RUN}/{NAME}_failed.txt").write_text("".join(failed), encoding="utf-8")

    onsuccess:
        # what failed would do so again, and no job is to blame: said last
        failed = Path(f"{RUN}/{NAME}_failed.txt")
        if failed.exists() and (listed := failed.read_text(encoding="utf-8")):
            raise WorkflowError(f"{RUN}/{NAME}.csv and .png are made, without these runs:\n{listed}")
