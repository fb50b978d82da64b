"""``fdta tables``: results/tables.md."""

from __future__ import annotations

import argparse
from pathlib import Path

from fdta.cli import add_description, add_params, check_project_outputs, output_file
from fdta.errors import InputError
from fdta.experiment.params import Experiment
from fdta.files import check_beside
from fdta.settings import suggestion


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_description(parser, "\nReads scores/ and models/*/history.jsonl; what is absent is a dash.")
    parser.add_argument("--root", type=Path, default=Path(), metavar="FOLDER", help="folder of scores/ and models/")
    parser.add_argument(
        "--output",
        type=output_file,
        metavar="FILE",
        help="Markdown; CSVs beside, in tables/; by default results/tables.md in --root",
    )
    parser.add_argument("--only", metavar="TABLE", help="print this one (table-4, or 4) and write nothing")
    add_params(parser)
    parser.set_defaults(call=_tables)


def _tables(options: argparse.Namespace) -> None:
    from fdta.cli.run import execute_or_write
    from fdta.experiment.plan import METRICS, TRAINING_CURVES, require_scores
    from fdta.experiment.steps import Steps
    from fdta.report.tables import write_tables

    if options.only:
        _print(options)
        return
    output = options.output or options.root / "results" / "tables.md"
    beside = [output.with_name(name) for name in (METRICS.name, TRAINING_CURVES.name)]
    check_project_outputs(options, output, *beside)
    params = Experiment(options.params, options.benchmark)
    scored, runs = require_scores(params, options.root)
    job = Steps(params, options.root).tables().job
    if output.resolve() != (options.root / job.outputs[0]).resolve():
        check_beside(output, *beside, output.with_name("tables"))
    execute_or_write(options.root, job, output, lambda: write_tables(params, options.root, output))
    print(f"written: {output}, benchmark {params.benchmark.name}, {scored} of {runs} runs scored")


def _print(options: argparse.Namespace) -> None:
    from fdta.experiment.steps import Steps
    from fdta.provenance import check_unchanged
    from fdta.report import markdown
    from fdta.report.results import Results
    from fdta.report.views import tables

    params = Experiment(options.params, options.benchmark)
    check_unchanged(options.root, Steps(params, options.root).tables().job)
    written = {table.name: table for table in tables(Results(params, options.root))}
    name = f"table-{options.only}" if options.only.isdecimal() else options.only
    if name in params.all_tables and name not in params.tables:
        raise InputError(f"--only {options.only}: {params.left_out(name)}; choose another table or benchmark")
    if name not in written:
        raise InputError(f"--only {options.only}: no such table; {suggestion(name, written)}")
    print(markdown.section(written[name]))
