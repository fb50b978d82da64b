# models/DATASET/detector and models/RUN: model.pt, history.jsonl, record.json.

# Several GPUs: one process each.
TRAIN = "fdta" if BENCHMARK.gpus < 2 else f"torchrun --standalone --nproc-per-node {BENCHMARK.gpus} -m fdta"


def detector_step(wildcards):
    return STEPS.detector(wildcards.dataset)


def detector_threads(wildcards):
    """Every other training waits for the detector that they all start from: it gets the whole machine."""
    shared = any(data.detector_start == wildcards.dataset for data in BENCHMARK.datasets.values())
    return workflow.cores or 1 if shared else 1


rule train_detector:
    input:
        inputs(detector_step),
    output:
        update("models/{dataset}/detector/model.pt"),
        update("models/{dataset}/detector/history.jsonl"),
    log:
        "logs/train/{dataset}/detector.log",
    threads: detector_threads
    resources:
        gpu=TRAINING_GPUS,
    params:
        job=job(detector_step),
    shell:
        "{TRAIN} run {params.job:q} --threads {threads} {DEVICE} > {log:q} 2>&1"


def train_step(wildcards):
    return STEPS.train(run_of(wildcards, wildcards.variant))


rule train:
    input:
        inputs(train_step),
    output:
        update("models/{dataset}/{variant}/seed-{seed}/model.pt"),
        update("models/{dataset}/{variant}/seed-{seed}/history.jsonl"),
    log:
        "logs/train/{dataset}/{variant}/seed-{seed}.log",
    resources:
        gpu=TRAINING_GPUS,
    params:
        job=job(train_step),
    shell:
        "{TRAIN} run {params.job:q} --threads {threads} {DEVICE} > {log:q} 2>&1"
