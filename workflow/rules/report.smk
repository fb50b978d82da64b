FIGURES = page_figures(EXPERIMENT)
HERE = {"tables": lambda wildcards: STEPS.tables(), "report": lambda wildcards: STEPS.report()}


# On a cluster these run where Snakemake does.
localrules:
    tables,


rule tables:
    input:
        inputs(HERE["tables"]),
    output:
        report(update("results/tables.md"), caption="../report/tables.rst", category="Results"),
        update("results/metrics.json"),
        update("results/training.csv"),
    log:
        "logs/tables.log",
    params:
        job=job(HERE["tables"]),
    shell:
        "fdta run {params.job:q} > {log:q} 2>&1"


for figure, (name, datasets) in FIGURES.items():

    rule:
        name:
            f"figure_{figure.replace('-', '_')}"
        input:
            inputs(lambda wildcards, figure=figure: STEPS.figure(figure)),
        output:
            report(update(f"results/figures/{figure}.png"), caption=f"../report/{name}.rst", category="Figures"),
            update(f"results/figures/{figure}.json"),
        log:
            f"logs/figures/{figure}.log",
        params:
            job=job(lambda wildcards, figure=figure: STEPS.figure(figure)),
        shell:
            "fdta run {params.job:q} > {log:q} 2>&1"


rule figures:
    input:
        [f"results/figures/{figure}.png" for figure in FIGURES],


rule report:
    input:
        inputs(HERE["report"]),
    output:
        report(update("results/report.html"), caption="../report/page.rst", category="Results"),
    log:
        "logs/report.log",
    params:
        job=job(HERE["report"]),
    shell:
        "fdta run {params.job:q} > {log:q} 2>&1"


# The results of each stage of dvc.yaml, and for people: snakemake models_dance.
for stage, steps in stage_steps(STEPS, of_datasets=True).items():

    rule:
        name:
            stage.replace("-", "_", 1)
        input:
            [step.job.target for step in steps],


# MLflow comes last, and nothing waits for it.
onsuccess:
    shell("fdta mlflow sync --params {PARAMS_FILE:q} --benchmark {BENCHMARK.name:q} > logs/mlflow.log 2>&1 || true")
