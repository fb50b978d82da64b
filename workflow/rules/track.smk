# tracks/RUN/SPLIT/SEQUENCE.txt and detections/RUN/SPLIT/SEQUENCE.npz; record.json tells what they were made from.

# How many jobs share the sequences of a split; a cluster's profile sets it.
PARTS = int(config.get("track_parts", 1))


rule track_part:
    input:
        inputs(track_step),
    output:
        temp(touch("tracks/{dataset}/{variant}/seed-{seed}/.{split}-{part}-of-{parts}")),
    log:
        "logs/track/{dataset}/{variant}/seed-{seed}/{split}-{part}-of-{parts}.log",
    wildcard_constraints:
        part=r"\d+",
        parts=r"\d+",
    resources:
        gpu=GPU_JOB,
    params:
        job=job(track_step),
        device=DEVICE,
    shell:
        "fdta run {params.job:q} --part {wildcards.part}/{wildcards.parts} --threads {threads} {params.device} > {log:q} 2>&1"


rule track:
    input:
        parts,
        inputs(track_step),
    output:
        update("tracks/{dataset}/{variant}/seed-{seed}/{split}/record.json"),
    log:
        "logs/track/{dataset}/{variant}/seed-{seed}/{split}.log",
    resources:
        gpu=GPU_JOB,
    params:
        job=job(track_step),
        device=DEVICE,
    shell:
        "fdta run {params.job:q} --threads {threads} {params.device} > {log:q} 2>&1"


# The detector before anything is tracked, for the similarities between its embeddings.
rule detect:
    input:
        inputs(detect_step),
    output:
        update("detections/{dataset}/detector/seed-0/{split}/record.json"),
    log:
        "logs/detect/{dataset}-{split}.log",
    resources:
        gpu=GPU_JOB,
    params:
        job=job(detect_step),
        device=DEVICE,
    shell:
        "fdta run {params.job:q} --threads {threads} {params.device} > {log:q} 2>&1"


rule baseline:
    input:
        inputs(baseline_step),
    output:
        update("tracks/{dataset}/{method}/seed-{seed}/{split}/record.json"),
    log:
        "logs/track/{dataset}/{method}/seed-{seed}/{split}.log",
    params:
        job=job(baseline_step),
    shell:
        "fdta run {params.job:q} > {log:q} 2>&1"


rule submission:
    input:
        inputs(submission_step),
    output:
        update("results/submissions/{dataset}/{name}/seed-{seed}.zip"),
    log:
        "logs/submission/{dataset}/{name}/seed-{seed}.log",
    params:
        job=job(submission_step),
    shell:
        "fdta run {params.job:q} > {log:q} 2>&1"
