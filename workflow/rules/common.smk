import re
import sys
import uuid
from pathlib import Path

from fdta.errors import InputError
from fdta.experiment.dvc import stage_steps
from fdta.experiment.jobs import write_job
from fdta.experiment.locks import release_stale_lock
from fdta.experiment.params import Experiment
from fdta.experiment.plan import page_figures
from fdta.experiment.snapshot import read_snapshot, write_snapshot
from fdta.experiment.steps import Steps
from fdta.names import BASELINES, DETECTOR, Run


# params.yaml is read once for each start. Processes that Snakemake starts for single jobs read what it was then.
PARAMS_FILE = Path(config.get("params", Path(workflow.basedir) / "params.yaml")).absolute()
CONFIG = ("benchmark", "params", "track_parts")
try:
    for key, value in config.items():
        if key not in CONFIG or value in ("", None):
            raise InputError(f"--config {key}={value}: give {', '.join(CONFIG)}, each with a value")
    if workflow.is_main_process:
        EXPERIMENT = Experiment(PARAMS_FILE, config.get("benchmark"))
    else:
        EXPERIMENT = read_snapshot()
    STEPS = Steps(EXPERIMENT)
    STEPS.all()
except InputError as error:
    print(f"fdta: {error}", file=sys.stderr)
    raise SystemExit(2) from None
BENCHMARK = EXPERIMENT.benchmark
RENDERED = [name for name, data in BENCHMARK.datasets.items() if data.render is not None]
IMPORTED = [name for name, data in BENCHMARK.datasets.items() if data.weights]
TRAINED = [name for name in BENCHMARK.datasets if name not in IMPORTED]
CATALOGUED = [name for name in BENCHMARK.datasets if EXPERIMENT.source(name) is not None]

# Trainings ask for all the GPUs that the benchmark gives them, other jobs that compute for one.
TRAINING_GPUS = BENCHMARK.gpus
GPU_JOB = 1 if BENCHMARK.gpus else 0
DEVICE = "--device cuda" if BENCHMARK.gpus else "--device cpu"

# Provenance decides what is stale, not the times of files: the inputs of a result that is right are "ancient". Among them
# is a file that is newer than everything and has a content that was never seen: it makes a stale result be made.
STALE = Path(".snakemake/stale")
if workflow.is_main_process:
    release_stale_lock(Path())
    STALE.parent.mkdir(exist_ok=True)
    STALE.write_text(uuid.uuid4().hex)


onstart:
    write_snapshot(EXPERIMENT, Path())
    for step in STEPS.known():
        if not STEPS.state(step).fresh:
            write_job(Path(), step.job)


def step_of(find):
    """The function `find`, from wildcards to a step, with one line for a wrong name."""

    def found(wildcards):
        try:
            return find(wildcards)
        except InputError as error:
            print(f"fdta: {error}", file=sys.stderr)
            raise SystemExit(2) from None

    return found


def targets(step):
    """Files that are there when the inputs of `step` are."""
    own = [path for path, record in step.job.inputs.items() if record is None]
    maps = [path if Path(path).suffix else f"{Path(path).parent}/seqmaps/{Path(path).name}.txt" for path in own]
    return [need.job.target for need in step.needs] + maps


def inputs(find):
    """Input function of a rule whose steps `find` gives."""

    def of(wildcards):
        step = step_of(find)(wildcards)
        paths = [*targets(step), str(STALE)]
        return [ancient(path) for path in paths] if STEPS.state(step).fresh else paths

    return of


def job(find):
    """Parameter function of a rule: the file of the job."""
    return lambda wildcards: step_of(find)(wildcards).job.file


def one_of(names):
    """Pattern of a wildcard that is one of `names`; of nothing at all if there are none."""
    return "|".join(names) or "(?!)"


def run_of(wildcards, name):
    return Run(wildcards.dataset, name, int(wildcards.seed))


def split_step(wildcards):
    return STEPS.split(wildcards.dataset, wildcards.split)


def checkpoint_step(wildcards):
    return STEPS.checkpoint(f"pretrained/{wildcards.file}")


def depth_step(wildcards):
    return STEPS.depth(wildcards.dataset, wildcards.split)


def detector_step(wildcards):
    return STEPS.detector(wildcards.dataset)


def detector_threads(wildcards):
    """Every other training waits for the detector that they all start from: it gets the whole machine."""
    shared = any(data.detector_start == wildcards.dataset for data in BENCHMARK.datasets.values())
    return workflow.cores or 1 if shared else 1


def train_step(wildcards):
    return STEPS.train(run_of(wildcards, wildcards.variant))


def import_step(wildcards):
    return STEPS.train(Run.parse(f"{wildcards.dataset}/{wildcards.run}"))


def track_step(wildcards):
    return STEPS.track(run_of(wildcards, wildcards.variant), wildcards.split)


def parts(wildcards):
    """What the parts of a stale result leave."""
    if PARTS < 2 or STEPS.state(track_step(wildcards)).fresh:
        return []
    folder = f"tracks/{wildcards.dataset}/{wildcards.variant}/seed-{wildcards.seed}"
    return [f"{folder}/.{wildcards.split}-{part}-of-{PARTS}" for part in range(1, PARTS + 1)]


def detect_step(wildcards):
    return STEPS.track(Run(wildcards.dataset, DETECTOR), wildcards.split)


def baseline_step(wildcards):
    return STEPS.track(run_of(wildcards, wildcards.method), wildcards.split)


def submission_step(wildcards):
    return STEPS.submission(run_of(wildcards, wildcards.name))


def score_step(wildcards):
    return STEPS.score(run_of(wildcards, wildcards.name), wildcards.split)


def similarity_step(wildcards):
    return STEPS.similarity(run_of(wildcards, wildcards.name), wildcards.split)


def speed_step(wildcards):
    return STEPS.speed(wildcards.dataset)


wildcard_constraints:
    dataset=one_of(BENCHMARK.datasets),
    variant=one_of(EXPERIMENT.variants),
    method=one_of(BASELINES),
    split=one_of({split for data in BENCHMARK.datasets.values() for split in data.splits}),
    seed=r"\d+",
    name=r"[\w-]+",
