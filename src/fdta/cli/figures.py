"""``fdta figures``: one figure of the paper."""

from __future__ import annotations

import argparse
from pathlib import Path

from fdta.cli import add_description, add_params, check_project_outputs, output_file
from fdta.errors import InputError
from fdta.experiment.params import Experiment
from fdta.experiment.plan import FIGURES, figure_datasets
from fdta.files import check_beside


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_description(
        parser,
        "\n  similarity       Fig. 1     between the objects of a frame: detector alone, base, full"
        "\n  depth            Fig. 5, 10 frame, predicted and pseudo depth"
        "\n  tracks           Fig. 6, 13 base and full on the same frames, identity errors marked"
        "\n  embeddings       Fig. 7     t-SNE, coloured by identity"
        "\n  depth-attention  Fig. 11    where object queries look"
        "\n  interactions     Fig. 12    weights of the Temporal Adapter"
        "\n  training                    losses and validation scores"
        "\nReads what the runs left; snakemake makes what is missing: snakemake results/figures/tracks-dance.png",
    )
    parser.add_argument("name", choices=FIGURES, metavar="NAME", help="figure, one of those above")
    parser.add_argument(
        "--dataset", action="append", metavar="NAME", help="data set, may be given several times; all if left out"
    )
    parser.add_argument("--root", type=Path, default=Path(), metavar="FOLDER", help="folder of data/, models/, ...")
    parser.add_argument(
        "--output",
        type=output_file,
        required=True,
        metavar="FILE",
        help="PNG or WebP to write; title and caption go to .json beside",
    )
    add_params(parser)
    parser.set_defaults(call=_figures)


def _figures(options: argparse.Namespace) -> None:
    params = Experiment(options.params, options.benchmark)
    if options.output.suffix not in (".png", ".webp"):
        raise InputError(f"--output {options.output}: figures are PNG or WebP, name a file that ends in .png or .webp")
    check_project_outputs(options, options.output, options.output.with_suffix(".json"))
    check_beside(options.output, options.output.with_suffix(".json"))
    datasets = tuple(dict.fromkeys(options.dataset or figure_datasets(params)))
    if not datasets:
        raise InputError(f"benchmark {params.benchmark.name!r}: no data set has runs of base and full to show")
    from fdta.report.figures import draw

    draw(options.name, params, options.root, datasets, options.output)
    print(f"written: {options.output}")
