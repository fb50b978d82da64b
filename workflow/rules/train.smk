# models/DATASET/detector and models/RUN: model.pt, record.json, and of a training history.jsonl.

# Several GPUs: one process each.
TRAIN = "fdta" if BENCHMARK.gpus < 2 else f"torchrun --standalone --nproc-per-node {BENCHMARK.gpus} -m fdta"


rule train_detector:
    input:
        inputs(detector_step),
    output:
        update("models/{dataset}/detector/model.pt"),
        update("models/{dataset}/detector/history.jsonl"),
    log:
        "logs/train/{dataset}/detector.log",
    wildcard_constraints:
        dataset=one_of(TRAINED),
    threads: detector_threads
    resources:
        gpu=TRAINING_GPUS,
    params:
        job=job(detector_step),
        device=DEVICE,
        command=TRAIN,
    shell:
        "{params.command} run {params.job:q} --threads {threads} {params.device} > {log:q} 2>&1"


rule train:
    input:
        inputs(train_step),
    output:
        update("models/{dataset}/{variant}/seed-{seed}/model.pt"),
        update("models/{dataset}/{variant}/seed-{seed}/history.jsonl"),
    log:
        "logs/train/{dataset}/{variant}/seed-{seed}.log",
    wildcard_constraints:
        dataset=one_of(TRAINED),
    resources:
        gpu=TRAINING_GPUS,
    params:
        job=job(train_step),
        device=DEVICE,
        command=TRAIN,
    shell:
        "{params.command} run {params.job:q} --threads {threads} {params.device} > {log:q} 2>&1"


# From a published checkpoint instead.
rule import_weights:
    input:
        inputs(import_step),
    output:
        update("models/{dataset}/{run}/model.pt"),
    log:
        "logs/import/{dataset}/{run}.log",
    wildcard_constraints:
        dataset=one_of(IMPORTED),
        run=rf"{DETECTOR}|({one_of(EXPERIMENT.variants)})/seed-\d+",
    params:
        job=job(import_step),
    shell:
        "fdta run {params.job:q} > {log:q} 2>&1"
