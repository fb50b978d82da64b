"""The command ``fdta``: one module a subcommand, loaded when it is called."""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import logging
import os
import re
import shutil
import signal
import sys
from pathlib import Path
from typing import NoReturn

from fdta.errors import InputError
from fdta.files import check_outputs, check_replaceable

COMMANDS = {
    "params": "show and check what params.yaml runs",
    "data": "render, download, import, convert or check data sets",
    "depth": "make the pseudo depth of a split",
    "train": "train a detector or a variant of FDTA",
    "weights": "download and read published checkpoints, or write ours as the published code does",
    "export": "write a run's tracker as ONNX files",
    "track": "track a video, or every sequence of a folder",
    "detect": "run a detector alone, without tracking",
    "baseline": "run SORT, ByteTrack, OC-SORT or BoT-SORT on a run's detections",
    "score": "score tracks against ground truth with TrackEval",
    "submission": "zip a run's tracks for an evaluation server",
    "similarity": "measure how alike the object embeddings of a run are",
    "bench": "measure speed",
    "figures": "draw the figures of the paper from finished runs",
    "tables": "write the paper's tables with our numbers beside them",
    "report": "write the page of tables and figures",
    "mlflow": "send runs to MLflow",
    "plan": "write what each step depends on to plan/, for DVC",
    "runs": "list what is trained and scored",
    "trace": "print what a result was made from, and whether it is still right",
    "run": "run one job of the workflow",
}

REMEDIES = {
    errno.ENOSPC: "free some room or choose another folder",
    errno.EDQUOT: "free some room or choose another folder",
    errno.EFBIG: "files may not be so large here, choose another folder",
    errno.EIO: "the disk or the connection to it fails, fix it or choose another folder",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "its links form a circle, fix them",
    errno.EACCES: "allow it with chmod, or choose another place",
    errno.EPERM: "choose a place where you may write",
    errno.EROFS: "choose a place where you may write",
    errno.EISDIR: "give the name of a file",
    errno.ENOTDIR: "a file stands where a folder is needed, choose another place",
    errno.EEXIST: "a file stands where a folder is needed, choose another place",
}
"""What to do about an error of the file system."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code (2: bad input, told in one line)."""
    parser = _Parser(
        prog="fdta",
        description="From Detection to Association: multi-object tracking as a reproducible pipeline.",
        epilog="`fdta COMMAND --help` tells more. The whole pipeline: snakemake --cores all results/tables.md",
    )
    parser.add_argument("--version", action=_Version, help="print the version and end")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    given = sys.argv[1:] if arguments is None else arguments
    for name, summary in COMMANDS.items():
        command = add_action(commands, name, summary)
        if given and given[0] == name:
            importlib.import_module(f"fdta.cli.{name}").add_arguments(command)
    lines, logger = logging.StreamHandler(), logging.getLogger("fdta")
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    for stream in (sys.stdout, sys.stderr):
        # Names of files may hold what a terminal's encoding has not.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        _reject_empty(given)
        _check_current_folder()
        options = parser.parse_args(given)
        options.call(options)
    except InputError as error:
        print(f"fdta: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever read the output has seen enough; the interpreter must not try to write the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if "usable temporary directory" in str(error):
            print(f"fdta: {error.strerror}; free some room in one of them, or set TMPDIR", file=sys.stderr)
            return 2
        if error.errno not in REMEDIES and error.filename is None:
            raise
        print(f"fdta: {_told(error)}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "allocate memory" not in str(error):
            raise
        told = str(error).partition("\n")[0][-200:] or "out of memory"
        print(f"fdta: this needs more memory than there is ({told}); give it less at a time", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        package = (error.name or "fdta").split(".")[0]
        if package == "fdta":
            raise
        extra = "onnx" if package.startswith("onnx") else "pipeline"
        print(f"fdta: this needs the package {package}; give pip install 'fdta[{extra}]'", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print("fdta: stopped; what was finished is kept", file=sys.stderr)
        # As a shell reports a process that ended on this signal.
        return 128 + (stop.args[0] if stop.args else signal.SIGINT)
    finally:
        logger.removeHandler(lines)
    return 0


def _reject_empty(arguments: list[str]) -> None:
    """Reject empty arguments: as a path one would be the current folder."""
    if any(re.fullmatch(r"(--[\w-]+=)?", argument) for argument in arguments):
        raise InputError(f"{arguments[0] or 'COMMAND'}: an argument is empty; is a variable of the shell not set?")


def _check_current_folder() -> None:
    try:
        Path.cwd()
    except FileNotFoundError:
        raise InputError("the current folder was removed; change to another one") from None


def _told(error: OSError) -> str:
    """An error of the file system in one line."""
    place = error.filename2 or error.filename or "the output folder"
    if error.errno == errno.EISDIR:
        return f"{place}: is a folder; give the name of a file"
    room = _room(place) if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return f"{place}: {error.strerror}{room}; {REMEDIES.get(error.errno or 0, 'fix it and run the command again')}"


def _room(path: str) -> str:
    """How much is free where `path` is or is to be, for a message."""
    folder = next((parent for parent in Path(path).absolute().parents if parent.is_dir()), Path())
    return f" ({shutil.disk_usage(folder).free / 2**20:.1f} MiB free)"


class _Version(argparse.Action):
    """Asks for the version only where it is wanted."""

    def __init__(self, option_strings: list[str], dest: str, help: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"fdta {version('fdta')}")
        parser.exit()


class _Parser(argparse.ArgumentParser):
    """Reports a wrong argument in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults in the help where there are any, and the description's own line breaks."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None or action.default is False else super()._get_help_string(action)


def add_action(
    actions: argparse._SubParsersAction[_Parser] | argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
) -> argparse.ArgumentParser:
    """Parser of the command or action `name`, whose description is `summary`, a sentence that begins small."""
    description = summary[0].upper() + summary[1:] + "."
    return actions.add_parser(name, help=summary, description=description, formatter_class=_Formatter)


def add_description(parser: argparse.ArgumentParser, text: str) -> None:
    """Add lines to the description of a command."""
    parser.description = f"{parser.description or ''}{text}"


def output_file(text: str) -> Path:
    """A file to write, as an argument: anything that cannot be replaced is rejected before the work begins.

    Raises:
        InputError: see `fdta.files.check_replaceable`.
    """
    check_replaceable(Path(text))
    return Path(text)


def check_project_outputs(options: argparse.Namespace, *outputs: Path | None) -> None:
    """Reject outputs of a command on finished runs that would replace what it reads of the project.

    Raises:
        InputError: see `fdta.files.check_outputs`.
    """
    read = ("data", "detections", "models", "scores", "tracks", "server-scores.yaml")
    check_outputs(outputs, [options.params, *(options.root / name for name in read)])


PRECISIONS = ("float32", "bfloat16", "float16")


def add_params(parser: argparse.ArgumentParser) -> None:
    """Options that choose the settings."""
    add_catalogue(parser, "settings file")
    parser.add_argument("--benchmark", metavar="NAME", help="benchmark instead of the one that the file names")


def add_catalogue(
    parser: argparse.ArgumentParser, told: str = "settings file whose `catalogue` has more checkpoints, if it is there"
) -> None:
    """Option of the settings file, for commands that need no more of it than the catalogue."""
    parser.add_argument("--params", type=_settings_file, default=Path("params.yaml"), metavar="FILE", help=told)


def _settings_file(text: str) -> Path:
    """A settings file that was asked for: the default alone may be absent, where a command needs none.

    Raises:
        InputError: it is not there, or a folder.
    """
    path = Path(text)
    if not path.exists():
        raise InputError(f"{path}: no such file; correct --params")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the name of a file")
    return path


WEIGHTS = "published tracker (dancetrack; `fdta weights list`), run (dance/full/seed-0) or checkpoint file (model.pt)"
"""Help of what is given as weights."""


def add_root(parser: argparse.ArgumentParser) -> None:
    """Option of the project's folder."""
    parser.add_argument("--root", type=Path, default=Path(), metavar="FOLDER", help="the project's folder")


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Option of the processes that read clips."""
    parser.add_argument(
        "--workers",
        type=_workers,
        default="auto",
        metavar="N",
        help="processes that read and augment clips, for each GPU; auto: none on a CPU, else the CPU cores of each "
        "GPU, at most 8",
    )


def _workers(text: str) -> int | None:
    """Number of workers, None for "auto"."""
    if text == "auto":
        return None
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither auto nor a number from 0")
    return int(text)


def add_compute(parser: argparse.ArgumentParser, threads: int | None = 1) -> None:
    """Options of where to compute; without a default number of threads it depends on the model."""
    told = "CPU threads" + ("; by default one for a small model, else all cores" if threads is None else "")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute")
    parser.add_argument("--threads", type=int, default=threads, metavar="N", help=told)


def add_precision(parser: argparse.ArgumentParser) -> None:
    """Option of the numbers that the detector multiplies in."""
    parser.add_argument(
        "--dtype", choices=PRECISIONS, default="float32", help="numbers of the detector; the last on CUDA"
    )
