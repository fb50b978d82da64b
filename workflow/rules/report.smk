TABLE_INPUTS = table_inputs(PARAMS, Path("."))


# Scores that somebody removed after the tables were written: Snakemake alone would not miss them.
note_absent_inputs(Path("results/tables.md"), TABLE_INPUTS, Path("settings/absent.json"))


# On a cluster these run where Snakemake does: compute nodes often reach no server.
localrules:
    mlflow,
    tables,


rule mlflow:
    input:
        TABLE_INPUTS,
    output:
        f"results/mlflow-{BENCHMARK.name}.json",
    log:
        "logs/mlflow.log",
    shell:
        "fdta mlflow sync --output {output} {CHOICE} > {log} 2>&1"


rule tables:
    input:
        [SERVER_SCORES] if Path(SERVER_SCORES).is_file() else [],
        "settings/tables.json",
        "settings/absent.json",
        f"results/mlflow-{BENCHMARK.name}.json",
        TABLE_INPUTS,
    output:
        report("results/tables.md", caption="../report/tables.rst", category="Results"),
        [f"results/tables/{name}.csv" for name in (*PARAMS.tables, "depth-cost", "similarity")],
        str(METRICS),
        str(TRAINING_CURVES),
    log:
        "logs/tables.log",
    shell:
        "fdta tables --output {output[0]} {CHOICE} > {log} 2>&1"


# The detector before anything is tracked, for the similarities between its embeddings.
rule detect:
    input:
        "settings/{dataset}/detector/track.json",
        the_sequences,
        "models/{dataset}/detector.pt",
    output:
        "detections/{dataset}/detector/seed-0/{split}/summary.json",
    log:
        "logs/detect/{dataset}-{split}.log",
    resources:
        gpu=GPU_JOB,
    shell:
        "fdta detect {wildcards.dataset} {wildcards.split} --threads {threads} {DEVICE} {CHOICE} > {log} 2>&1"


rule detector_similarity:
    input:
        "settings/similarity.json",
        "settings/{dataset}/detector/track.json",
        "detections/{dataset}/detector/seed-0/{split}/summary.json",
    output:
        "scores/{dataset}/detector/seed-0/{split}-similarity.json",
    log:
        "logs/similarity/{dataset}/detector/{split}.log",
    shell:
        "fdta similarity {wildcards.dataset}/detector/seed-0 {wildcards.split} --output {output} {CHOICE}"
        " > {log} 2>&1"


FIGURES = page_figures(PARAMS)


for figure, (name, datasets) in FIGURES.items():

    rule:
        name:
            f"figure_{figure.replace('-', '_')}"
        input:
            "settings/figures.json",
            figure_inputs(PARAMS, Path("."), name, datasets),
        output:
            report(f"results/figures/{figure}.png", caption=f"../report/{name}.rst", category="Figures"),
            f"results/figures/{figure}.json",
        log:
            f"logs/figures/{figure}.log",
        params:
            figure=name,
            datasets=[f"--dataset {dataset}" for dataset in datasets],
        shell:
            "fdta figures {params.figure} {params.datasets} --output {output[0]} {CHOICE} > {log} 2>&1"


rule figures:
    input:
        [f"results/figures/{figure}.png" for figure in FIGURES],


rule report:
    input:
        "settings/page.json",
        "settings/tables.json",
        "results/tables.md",
        TABLE_INPUTS,
        [f"results/figures/{figure}.{ending}" for figure in FIGURES for ending in ("png", "json")],
    output:
        report("results/report.html", caption="../report/page.rst", category="Results"),
    log:
        "logs/report.log",
    shell:
        "fdta report --output {output} {CHOICE} > {log} 2>&1"
