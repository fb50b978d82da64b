# Several GPUs: one process each.
TRAIN = "fdta" if BENCHMARK.gpus < 2 else f"torchrun --standalone --nproc-per-node {BENCHMARK.gpus} -m fdta"


def detector_start(wildcards):
    start = PARAMS.dataset(wildcards.dataset).detector_start
    if start is None:
        return []
    return f"models/{start}/detector.pt" if start in BENCHMARK.datasets else start


def detector_threads(wildcards):
    """Every other training waits for the detector that they all start from: it gets the whole machine."""
    shared = any(data.detector_start == wildcards.dataset for data in BENCHMARK.datasets.values())
    return workflow.cores or 1 if shared else 1


rule train_detector:
    input:
        "settings/{dataset}/detector.json",
        lambda wildcards: training_data(wildcards.dataset, DETECTOR),
        start=detector_start,
    output:
        "models/{dataset}/detector.pt",
        "models/{dataset}/detector-history.jsonl",
    log:
        "logs/train/{dataset}/detector.log",
    threads: detector_threads
    resources:
        gpu=TRAINING_GPUS,
    shell:
        "{TRAIN} train {wildcards.dataset}/detector --threads {threads} {DEVICE} {CHOICE} > {log} 2>&1"


rule train:
    input:
        "settings/{dataset}/{variant}/train.json",
        lambda wildcards: training_data(wildcards.dataset, wildcards.variant),
        detector="models/{dataset}/detector.pt",
    output:
        "models/{dataset}/{variant}/seed-{seed}/model.pt",
        "models/{dataset}/{variant}/seed-{seed}/history.jsonl",
    log:
        "logs/train/{dataset}/{variant}/seed-{seed}.log",
    resources:
        gpu=TRAINING_GPUS,
    shell:
        "{TRAIN} train {wildcards.dataset}/{wildcards.variant}/seed-{wildcards.seed} --threads {threads} {DEVICE} {CHOICE}"
        " > {log} 2>&1"
