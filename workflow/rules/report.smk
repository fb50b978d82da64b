rule mlflow:
    input:
        table_inputs(PARAMS, Path(".")),
    output:
        f"results/mlflow-{BENCHMARK.name}.json",
    log:
        "logs/mlflow.log",
    shell:
        "fdta mlflow log --output {output} {CHOICE} > {log} 2>&1"


rule tables:
    input:
        "settings/tables.json",
        f"results/mlflow-{BENCHMARK.name}.json",
        table_inputs(PARAMS, Path(".")),
    output:
        "results/tables.md",
        [f"results/tables/{name}.csv" for name in (*PARAMS.tables, "similarity")],
    log:
        "logs/tables.log",
    shell:
        "fdta tables --output {output[0]} {CHOICE} > {log} 2>&1"
