import re
from pathlib import Path

from fdta.experiment.params import Experiment
from fdta.names import BASELINES, DETECTOR
from fdta.settings import ParamsError
from fdta.experiment.plan import METRICS, TRAINING_CURVES, figure_inputs, page_figures, table_inputs
from fdta.report.server_scores import FILE as SERVER_SCORES
from fdta.workflow import note_absent_inputs, settle_restored_files, write_resolved_settings

from snakemake.exceptions import WorkflowError

PARAMS_FILE = Path(config.get("params", Path(workflow.basedir) / "params.yaml")).absolute()
try:
    PARAMS = Experiment(PARAMS_FILE, config.get("benchmark"))
except ParamsError as error:
    raise WorkflowError(f"fdta: {error}") from None
BENCHMARK = PARAMS.benchmark
RENDERED = [name for name, data in BENCHMARK.datasets.items() if data.render is not None]
CATALOGUED = [name for name in BENCHMARK.datasets if PARAMS.source(name) is not None]
CHOICE = f"--params {PARAMS_FILE} --benchmark {BENCHMARK.name}"

# Trainings ask for all the GPUs that the benchmark gives them, other jobs that compute for one.
TRAINING_GPUS = BENCHMARK.gpus
GPU_JOB = 1 if BENCHMARK.gpus else 0
DEVICE = "--device cuda" if BENCHMARK.gpus else "--device cpu"


def one_of(names):
    """Pattern of a wildcard that is one of `names`; of nothing at all where there are none."""
    return "|".join(names) or "(?!)"


settle_restored_files(Path())
write_resolved_settings(PARAMS, Path("settings"))


wildcard_constraints:
    dataset=one_of(BENCHMARK.datasets),
    variant=one_of(PARAMS.variants),
    method=one_of(BASELINES),
    split=one_of({split for data in BENCHMARK.datasets.values() for split in data.splits}),
    seed=r"\d+",


def sequences(dataset, split):
    """What stands for a split: its sequence map and its digest, as other frames may bear the same names."""
    return [f"data/{dataset}/seqmaps/{split}.{ending}" for ending in ("txt", "json")]


def the_sequences(wildcards):
    return sequences(wildcards.dataset, wildcards.split)


def training_data(dataset, variant):
    """What training `variant` on `dataset` reads: sequences, also of still images, and depth where an adapter needs it.

    Still images that are no data set of the benchmark must be there, with depth maps of the user's own.
    """
    settings = PARAMS.settings(dataset, variant)
    read = [(dataset, split) for split in settings.training_splits]
    read += [tuple(name.split("/")) for name in settings.clip.stills]
    files = [path for place in read for path in sequences(*place)]
    if settings.spatial.enabled:
        files += [f"data/{name}/depth-{split}.json" for name, split in read if name in BENCHMARK.datasets]
    return files + sequences(dataset, PARAMS.dataset(dataset).validation_split)
