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
        ancient(f"results/mlflow-{BENCHMARK.name}.json"),
        TABLE_INPUTS,
    output:
        "results/tables.md",
        [f"results/tables/{name}.csv" for name in (*PARAMS.tables, "depth-cost", "similarity")],
    log:
        "logs/tables.log",
    shell:
        "fdta tables --output {output[0]} {CHOICE} > {log} 2>&1"
