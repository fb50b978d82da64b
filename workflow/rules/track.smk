# tracks/RUN/SPLIT/SEQUENCE.txt and detections/RUN/SPLIT/SEQUENCE.npz; summary.json is written last.


# How many jobs share the sequences of a split; a cluster's profile sets it.
PARTS = int(config.get("track_parts", 1))


rule track_part:
    input:
        "settings/{dataset}/{variant}/track.json",
        the_sequences,
        model="models/{dataset}/{variant}/seed-{seed}/model.pt",
    output:
        temp("tracks/{dataset}/{variant}/seed-{seed}/{split}/.unfinished-{part}-of-{parts}.json"),
    log:
        "logs/track/{dataset}/{variant}/seed-{seed}/{split}-{part}-of-{parts}.log",
    wildcard_constraints:
        part=r"\d+",
        parts=r"\d+",
    resources:
        gpu=GPU_JOB,
    shell:
        "fdta track data/{wildcards.dataset}/{wildcards.split} --threads {threads} {DEVICE} {CHOICE}"
        " --weights {wildcards.dataset}/{wildcards.variant}/seed-{wildcards.seed}"
        " --part {wildcards.part}/{wildcards.parts} > {log} 2>&1"


rule track:
    input:
        [
            f"tracks/{{dataset}}/{{variant}}/seed-{{seed}}/{{split}}/.unfinished-{part}-of-{PARTS}.json"
            for part in range(1, PARTS + 1)
            if PARTS > 1
        ],
        "settings/{dataset}/{variant}/track.json",
        the_sequences,
        model="models/{dataset}/{variant}/seed-{seed}/model.pt",
    output:
        "tracks/{dataset}/{variant}/seed-{seed}/{split}/summary.json",
    log:
        "logs/track/{dataset}/{variant}/seed-{seed}/{split}.log",
    resources:
        gpu=GPU_JOB,
    shell:
        "fdta track data/{wildcards.dataset}/{wildcards.split} --threads {threads} {DEVICE} {CHOICE}"
        " --weights {wildcards.dataset}/{wildcards.variant}/seed-{wildcards.seed} > {log} 2>&1"


rule baseline:
    input:
        "settings/baseline.json",
        the_sequences,
        "tracks/{dataset}/full/seed-{seed}/{split}/summary.json",
    output:
        "tracks/{dataset}/{method}/seed-{seed}/{split}/summary.json",
    log:
        "logs/track/{dataset}/{method}/seed-{seed}/{split}.log",
    shell:
        "fdta baseline {wildcards.method} data/{wildcards.dataset}/{wildcards.split}"
        " --detections {wildcards.dataset}/full/seed-{wildcards.seed} > {log} 2>&1"


rule submission:
    input:
        lambda wildcards: sequences(wildcards.dataset, PARAMS.submission_split(wildcards.dataset)),
        lambda wildcards: f"tracks/{wildcards.dataset}/{wildcards.name}/seed-{wildcards.seed}/"
        f"{PARAMS.submission_split(wildcards.dataset)}/summary.json",
    output:
        "results/submissions/{dataset}/{name}/seed-{seed}.zip",
    log:
        "logs/submission/{dataset}/{name}/seed-{seed}.log",
    wildcard_constraints:
        dataset=one_of(name for name in BENCHMARK.datasets if PARAMS.submission_split(name)),
        name="[\\w-]+",
    shell:
        "fdta submission {wildcards.dataset}/{wildcards.name}/seed-{wildcards.seed} --output {output} {CHOICE} > {log} 2>&1"
