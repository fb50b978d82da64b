rule score:
    input:
        "settings/score.json",
        the_sequences,
        "tracks/{dataset}/{name}/seed-{seed}/{split}/summary.json",
    output:
        "scores/{dataset}/{name}/seed-{seed}/{split}.json",
    log:
        "logs/score/{dataset}/{name}/seed-{seed}/{split}.log",
    wildcard_constraints:
        name="[\\w-]+",
    shell:
        "fdta score --ground-truth data/{wildcards.dataset}/{wildcards.split} --output {output}"
        " --tracks tracks/{wildcards.dataset}/{wildcards.name}/seed-{wildcards.seed}/{wildcards.split} > {log} 2>&1"


rule similarity:
    input:
        "settings/similarity.json",
        "settings/{dataset}/{variant}/track.json",
        "tracks/{dataset}/{variant}/seed-{seed}/{split}/summary.json",
    output:
        "scores/{dataset}/{variant}/seed-{seed}/{split}-similarity.json",
    log:
        "logs/similarity/{dataset}/{variant}/seed-{seed}/{split}.log",
    shell:
        "fdta similarity {wildcards.dataset}/{wildcards.variant}/seed-{wildcards.seed} {wildcards.split}"
        " --output {output} {CHOICE} > {log} 2>&1"


rule speed:
    input:
        "settings/speed.json",
        "settings/{dataset}/full/track.json",
        lambda wildcards: sequences(wildcards.dataset, PARAMS.dataset(wildcards.dataset).test_split),
        model=f"models/{{dataset}}/full/seed-{BENCHMARK.seeds[0]}/model.pt",
    output:
        "results/speed/{dataset}.json",
    log:
        "logs/speed/{dataset}.log",
    # Alone on the machine, so that nothing else is measured; one thread, because more do not help so small a network.
    threads: workflow.cores or 1
    resources:
        gpu=GPU_JOB,
    params:
        seed=BENCHMARK.seeds[0],
        split=lambda wildcards: PARAMS.dataset(wildcards.dataset).test_split,
    shell:
        "fdta bench infer data/{wildcards.dataset}/{params.split} --output {output} {DEVICE} {CHOICE}"
        " --weights {wildcards.dataset}/full/seed-{params.seed} > {log} 2>&1"
