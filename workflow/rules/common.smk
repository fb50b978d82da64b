from pathlib import Path

from fdta.params import BASELINES, DETECTOR, Params, ParamsError
from fdta.report.runs import figure_inputs, page_figures, table_inputs
from fdta.workflow import note_absent_inputs, write_resolved_settings

from snakemake.exceptions import WorkflowError

PARAMS_FILE = Path(config.get("params", Path(workflow.basedir) / "params.yaml")).absolute()
try:
    PARAMS = Params(PARAMS_FILE, config.get("benchmark"))
except ParamsError as error:
    raise WorkflowError(f"fdta: {error}") from None
BENCHMARK = PARAMS.benchmark
CHOICE = f"--params {PARAMS_FILE} --benchmark {BENCHMARK.name}"

# A rule's settings are a file among its inputs: whoever changes one re-runs what it sets, and nothing else.
write_resolved_settings(PARAMS, Path("settings"))


wildcard_constraints:
    dataset="|".join(BENCHMARK.datasets),
    variant="|".join(PARAMS.variants),
    method="|".join(BASELINES),
    split="|".join({split for data in BENCHMARK.datasets.values() for split in data.splits}),
    seed=r"\d+",


def seqmap(dataset, split):
    return f"data/{dataset}/seqmaps/{split}.txt"


def training_data(dataset, variant):
    """What training `variant` on `dataset` reads of the data set: sequences, and depth where an adapter needs it."""
    settings = PARAMS.settings(dataset, variant)
    splits = settings.training_splits
    read = [seqmap(dataset, split) for split in splits]
    if settings.spatial.enabled:
        read += [f"data/{dataset}/depth-{split}.json" for split in splits]
    return read + [seqmap(dataset, BENCHMARK.dataset(dataset).validation_split)]
