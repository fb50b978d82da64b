"""The only reader of ``params.yaml``.

The file names *benchmarks* (data sets and the settings they share), *variants* (overrides of the full model) and
*tables* (which variants are in which table of the paper). The settings of a run are the benchmark's, overridden by the
data set's, the preset's (presets.yaml) and the variant's, in this order. Every mistake raises `ParamsError` with the
path of the key.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from fdta.acquire.catalogue import Checkpoint, Source, read_catalogue
from fdta.experiment.settings import BenchmarkSettings, DatasetSettings, Settings, TableSettings
from fdta.model.settings import ModelSettings
from fdta.names import BASELINES, DETECTOR
from fdta.settings import (
    ParamsError,
    check_names,
    expand,
    mapping,
    merge,
    named,
    read_settings,
    read_yaml,
    suggestion,
    to_plain,
)

KEYS = ("benchmark", "preset", "seeds", "benchmarks", "variants", "tables", "catalogue")
PRESETS = Path(__file__).with_name("presets.yaml")


class Experiment:
    """params.yaml, read and checked.

    Raises:
        ParamsError: the file cannot be read, or a key or value in it is wrong; the message gives the key's path.
    """

    def __init__(self, path: Path, benchmark: str | None = None) -> None:
        self._all_datasets: tuple[str, ...] | None = None
        self._build(read_yaml(path), path, benchmark)

    @classmethod
    def from_document(cls, document: dict[str, Any], path: Path) -> Experiment:
        """Experiment of the content of a params.yaml; `path` is for messages.

        Raises:
            ParamsError: a key or value is wrong.
        """
        experiment = cls.__new__(cls)
        experiment._all_datasets = tuple(document["all_datasets"])
        experiment._build({key: value for key, value in document.items() if key != "all_datasets"}, path, None)
        return experiment

    def document(
        self, datasets: tuple[str, ...] | None = None, variants: tuple[str, ...] | None = None
    ) -> dict[str, Any]:
        """Content of a params.yaml that holds this experiment alone, without what only other benchmarks use.

        Args:
            datasets: only these, and those that their detectors start from; None: all of the benchmark.
            variants: only these; None: all.
        """
        benchmark = to_plain(self.benchmark)
        name = benchmark.pop("name")
        kept = self._with_starts(datasets or tuple(self.benchmark.datasets), self.benchmark)
        benchmark["datasets"] = {each: value for each, value in benchmark["datasets"].items() if each in kept}
        allowed = self.variants if variants is None else variants
        if benchmark["only"] is not None:
            benchmark["only"] = list(benchmark["datasets"])
        for each in benchmark["datasets"].values():
            each["weights"] = {by: file for by, file in each["weights"].items() if by in (DETECTOR, *allowed)}
        for key in ("variants", "noise_seeds"):
            benchmark[key] = {each: value for each, value in benchmark[key].items() if each in allowed}
        tables = {each: to_plain(table) for each, table in self.all_tables.items()}
        for table in tables.values():
            table["rows"] = {row: by for row, by in table["rows"].items() if by in (*allowed, *BASELINES)}
        return {
            "benchmark": name,
            "preset": self.preset,
            "benchmarks": {name: benchmark},
            "all_datasets": list(self.all_datasets),
            "variants": {each: value for each, value in self._variants.items() if each in allowed},
            "tables": tables,
            "catalogue": self._additions,
        }

    def _build(self, raw: dict[str, Any], path: Path, benchmark: str | None) -> None:
        self.path = path
        for key in raw:
            if key not in KEYS:
                raise ParamsError(f"{path}: {key}: unknown key; {suggestion(key, KEYS)}")
        for key in ("benchmark", "benchmarks", "variants", "tables"):
            if key not in raw:
                raise ParamsError(f"{path}: {key}: missing; add it")
        self._additions = raw.get("catalogue") or {}
        self._catalogue = read_catalogue(self._additions, path)
        for key in ("benchmarks", "variants", "tables"):
            check_names(mapping(raw[key], key, path), key, path)
        self._benchmarks = mapping(raw["benchmarks"], "benchmarks", path)
        self.benchmark_names = tuple(self._benchmarks)
        for name, each in self._benchmarks.items():
            where = f"benchmarks.{name}"
            datasets = mapping(each, where, path).get("datasets") or {}
            check_names(mapping(datasets, f"{where}.datasets", path), f"{where}.datasets", path)
        self._variants = {
            name: mapping(overrides or {}, f"variants.{name}", path)
            for name, overrides in mapping(raw["variants"], "variants", path).items()
        }
        self.preset: str | None = raw.get("preset")
        self._preset = _preset(self.preset, path)
        self.benchmark = self._benchmark(benchmark or raw["benchmark"], raw.get("seeds", [0]))
        self.all_tables = {
            name: read_settings(TableSettings, table, f"tables.{name}", path)
            for name, table in mapping(raw["tables"], "tables", path).items()
        }
        self._check_names()
        if self.benchmark.only is not None:
            kept = self._with_starts(self.benchmark.only, self.benchmark)
            datasets = {name: data for name, data in self.benchmark.datasets.items() if name in kept}
            self.benchmark = replace(self.benchmark, datasets=datasets)
        self.tables = {
            name: self._measurable(table) for name, table in self.all_tables.items() if not self.left_out(name)
        }
        self._settings = {
            (dataset, variant): self._assembled(dataset, variant)
            for dataset in self.benchmark.datasets
            for variant in (DETECTOR, *self._variants)
        }

    @property
    def all_datasets(self) -> tuple[str, ...]:
        """Names of the data sets of all benchmarks."""
        if self._all_datasets is not None:
            return self._all_datasets
        names = [name for raw in self._benchmarks.values() for name in raw.get("datasets") or {}]
        return tuple(dict.fromkeys(names))

    @property
    def variants(self) -> tuple[str, ...]:
        """Names of the variants."""
        return tuple(self._variants)

    def variants_of(self, dataset: str) -> tuple[str, ...]:
        """Names of the variants that `dataset` has runs of: all, or those that its checkpoints are of.

        Raises:
            ParamsError: the benchmark has no such data set.
        """
        weights = self.dataset(dataset).weights
        return tuple(name for name in self._variants if not weights or name in weights)

    @property
    def catalogue(self) -> dict[str, Source]:
        """Real data sets by name: the shipped ones, and those under ``catalogue.datasets``."""
        return self._catalogue.datasets

    @property
    def checkpoints(self) -> dict[str, Checkpoint]:
        """Published checkpoints by file name: the shipped ones, and those under ``catalogue.checkpoints``."""
        return self._catalogue.checkpoints

    def dataset(self, name: str) -> DatasetSettings:
        """Data set `name` of the benchmark.

        Raises:
            ParamsError: no such data set.
        """
        if name not in self.benchmark.datasets:
            raise ParamsError(
                f"data set {name!r} is not in benchmark {self.benchmark.name!r}, which has "
                f"{named(self.benchmark.datasets)}; choose another benchmark with --benchmark"
            )
        return self.benchmark.datasets[name]

    def source(self, dataset: str) -> Source | None:
        """The catalogue's entry for the data set `dataset` of the benchmark; None: it is rendered, or not listed.

        Raises:
            ParamsError: the benchmark has no such data set.
        """
        data = self.dataset(dataset)
        return None if data.render is not None else self.catalogue.get(data.source or dataset)

    def submission_split(self, dataset: str) -> str | None:
        """Split of `dataset` whose ground truth a server keeps; its tracks are zipped for it.

        Raises:
            ParamsError: the benchmark has no such data set.
        """
        source = self.source(dataset)
        return next((name for name, split in source.splits.items() if not split.ground_truth), None) if source else None

    def used_settings(self, dataset: str, variant: str) -> dict[str, Any]:
        """Plain settings of the runs of `variant` (or "detector") on `dataset`: all, or of an imported model those that
        it is built and tracked with, and its checkpoint.

        Raises:
            ParamsError: no such data set or variant.
        """
        plain, weights = to_plain(self.settings(dataset, variant)), self.dataset(dataset).weights
        if not weights:
            return plain
        names = {each.name for each in fields(ModelSettings)}
        model = {key: value for key, value in plain.items() if key in (*names, "tracker")}
        # Published checkpoints do not hold it, for it serves in training only.
        model["identity"]["feature_extractor"] = False
        return {"weights": weights.get(variant)} | model

    def settings(self, dataset: str, variant: str) -> Settings:
        """Settings of the runs of `variant` (or "detector") on `dataset`.

        Raises:
            ParamsError: no such data set or variant.
        """
        self.dataset(dataset)
        if (dataset, variant) not in self._settings:
            raise ParamsError(f"variant {variant!r} is not in {self.path}; {suggestion(variant, self._variants)}")
        return self._settings[dataset, variant]

    def _assembled(self, dataset: str, variant: str) -> Settings:
        benchmark, data = self.benchmark, self.benchmark.datasets[dataset]
        source = self.source(dataset)
        # What does not count stays in such a data set for its scoring (`Form.classes`).
        chosen = {"clip": {"uncounted_boxes": False}} if source is not None and source.form.classes else {}
        overrides = [
            (chosen, f"benchmarks.{benchmark.name}.datasets.{dataset}"),
            (benchmark.settings, f"benchmarks.{benchmark.name}.settings"),
            (data.overrides, f"benchmarks.{benchmark.name}.datasets.{dataset}.overrides"),
        ]
        if variant == DETECTOR:
            overrides.append(({"spatial": {"enabled": False}}, DETECTOR))
        else:
            overrides.append((self._preset["settings"], f"{PRESETS.name}: {self.preset}.settings"))
            changes = self._preset["counterparts"].get(data.counterpart or dataset, {})
            overrides.append((changes, f"{PRESETS.name}: {self.preset}.counterparts"))
            overrides.append((self._variants[variant], f"variants.{variant}"))
            if variant in benchmark.variants:
                overrides.append((benchmark.variants[variant], f"benchmarks.{benchmark.name}.variants.{variant}"))
        merged: dict[str, Any] = {}
        read = Settings()
        for override, where in overrides:
            merged = merge(merged, expand(override, where, self.path))
            read = _read_run(merged, where, self.path)
        return read

    @staticmethod
    def _with_starts(names: tuple[str, ...], benchmark: BenchmarkSettings) -> tuple[str, ...]:
        """Data sets `names`, and those that their detectors start from."""
        starts = (benchmark.datasets[name].detector_start for name in names)
        return tuple(dict.fromkeys([*names, *(start for start in starts if start in benchmark.datasets)]))

    def _measurable(self, table: TableSettings) -> TableSettings:
        """`table` without rows that no checkpoint measures where nothing is trained."""
        dataset = self.benchmark.dataset_of(table.dataset)
        if dataset is None or not self.benchmark.datasets[dataset].weights:
            return table
        measuring = (*self.variants_of(dataset), *BASELINES)
        return replace(table, rows={row: by for row, by in table.rows.items() if by in measuring})

    def left_out(self, table: str) -> str:
        """Why the benchmark does not show `table`, which is in the file; empty if it does."""
        benchmark, settings = self.benchmark, self.all_tables[table]
        told = f"benchmark {benchmark.name} leaves {table} out"
        if benchmark.tables is not None and table not in benchmark.tables:
            return f"{told}: its key tables names {named(benchmark.tables)}"
        if benchmark.only is not None and benchmark.dataset_of(settings.dataset) is None:
            return f"{told}: it has no data set {settings.dataset} and none that stands for it"
        return "" if self._measurable(settings).rows else f"{told}: no checkpoint measures one of its rows"

    def _check_names(self) -> None:
        """Raise ParamsError where one part of the file names what another part does not have."""
        self._check_names_of_benchmark()
        path, benchmark = self.path, self.benchmark
        for name in self._variants:
            if name in (DETECTOR, *BASELINES):
                raise ParamsError(f"{path}: variants.{name}: the name is taken by the {name} itself; choose another")
        counterparts = sorted({table.dataset for table in self.all_tables.values()})
        for name, dataset in benchmark.datasets.items():
            if dataset.counterpart is not None and dataset.counterpart not in counterparts:
                where = f"benchmarks.{benchmark.name}.datasets.{name}.counterpart"
                raise ParamsError(
                    f"{path}: {where}: no table shows {dataset.counterpart!r}; they show {named(counterparts)}"
                )
        for name, table in self.all_tables.items():
            for row, measured_by in table.rows.items():
                if measured_by not in (*self._variants, *BASELINES):
                    raise ParamsError(
                        f"{path}: tables.{name}.rows.{row}: {measured_by!r} is neither a variant nor a baseline; "
                        f"{suggestion(measured_by, (*self._variants, *BASELINES))}"
                    )

    def _check_names_of_benchmark(self) -> None:
        """Raise ParamsError where the benchmark chooses a variant, data set or table that does not exist."""
        benchmark, models = self.benchmark, (DETECTOR, *self._variants)
        chosen: list[tuple[str, Iterable[str], Iterable[str], str]] = [
            ("variants", benchmark.variants, self._variants, "variant"),
            ("noise_seeds", benchmark.noise_seeds, self._variants, "variant"),
            ("only", benchmark.only or (), benchmark.datasets, "data set"),
            ("tables", benchmark.tables or (), self.all_tables, "table"),
            *(
                (f"datasets.{name}.weights", data.weights, models, "variant")
                for name, data in benchmark.datasets.items()
            ),
        ]
        for key, names, there, what in chosen:
            for name in names:
                if name not in there:
                    where = f"{self.path}: benchmarks.{benchmark.name}.{key}.{name}"
                    raise ParamsError(f"{where}: no such {what}; {suggestion(name, there)}")

    def _dataset(self, name: str, value: Any, where: str) -> dict[str, Any]:
        """Values of a data set; a real one gets its splits from the catalogue if it has none."""
        raw = mapping(value, where, self.path)
        source = raw.get("source") or name
        if raw.get("render") is None and source in self.catalogue:
            raw.setdefault("splits", {split: s.sequences for split, s in self.catalogue[source].splits.items()})
        elif raw.get("source") is not None:
            raise ParamsError(
                f"{self.path}: {where}.source: the catalogue has no {source!r}; {suggestion(source, self.catalogue)}"
            )
        return raw

    def _inherited(self, name: str, heirs: tuple[str, ...] = ()) -> dict[str, Any]:
        """Values of benchmark `name` over those of the one that it inherits from, at any depth."""
        where = f"benchmarks.{name}"
        raw = mapping(self._benchmarks[name], where, self.path)
        raw["settings"] = expand(raw.get("settings", {}), f"{where}.settings", self.path)
        parent = raw.pop("inherits", None)
        if parent is None:
            return raw
        if not isinstance(parent, str) or parent not in self._benchmarks:
            raise ParamsError(f"{self.path}: {where}.inherits: {parent!r} is no benchmark; {named(self._benchmarks)}")
        if parent in (name, *heirs):
            raise ParamsError(f"{self.path}: {where}.inherits: {parent!r} inherits from {name!r}; remove one of both")
        inherited = self._inherited(parent, (name, *heirs))
        return {**inherited, **raw, "settings": merge(inherited["settings"], raw["settings"])}

    def _benchmark(self, name: Any, seeds: Any) -> BenchmarkSettings:
        if not isinstance(name, str) or name not in self._benchmarks:
            raise ParamsError(f"{self.path}: benchmark: {name!r} is unknown; {suggestion(str(name), self._benchmarks)}")
        where = f"benchmarks.{name}"
        inherited = self._inherited(name)
        raw = {"seeds": seeds, **inherited, "name": name}
        if "datasets" in raw:
            raw["datasets"] = {
                key: self._dataset(key, value, f"{where}.datasets.{key}")
                for key, value in mapping(raw["datasets"], f"{where}.datasets", self.path).items()
            }
        try:
            return read_settings(BenchmarkSettings, raw, where, self.path)
        except ParamsError as error:
            if "seeds" in inherited:
                raise
            raise ParamsError(str(error).replace(f"{where}.seeds", "seeds")) from None


def _preset(name: Any, path: Path) -> dict[str, Any]:
    """Changes of the settings that the preset `name` makes; none without one."""
    presets = read_yaml(PRESETS)
    if name is None:
        return {"settings": {}, "counterparts": {}}
    if not isinstance(name, str) or name not in presets:
        raise ParamsError(f"{path}: preset: {name!r} is unknown; {suggestion(str(name), presets)}")
    preset: dict[str, Any] = presets[name]
    return preset


def _read_run(value: dict[str, Any], where: str, path: Path) -> Settings:
    return read_settings(Settings, value, where, path)
