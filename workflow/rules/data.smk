# data/DATASET/SPLIT/SEQUENCE: frames, ground truth, depth. The sequence map is written last.


rule render:
    input:
        inputs(split_step),
    output:
        update("data/{dataset}/seqmaps/{split}.txt"),
    log:
        "logs/render/{dataset}-{split}.log",
    wildcard_constraints:
        dataset=one_of(RENDERED),
    params:
        job=job(split_step),
    shell:
        "fdta run {params.job:q} > {log:q} 2>&1"


# Downloads wait for one another, as the network has the same speed for one as for many.
rule get_data:
    input:
        inputs(split_step),
    output:
        update("data/{dataset}/seqmaps/{split}.txt"),
    log:
        "logs/data/{dataset}-{split}.log",
    wildcard_constraints:
        dataset=one_of(CATALOGUED),
    resources:
        download=1,
    params:
        job=job(split_step),
    shell:
        "fdta run {params.job:q} > {log:q} 2>&1"


rule get_weights:
    input:
        inputs(checkpoint_step),
    output:
        update("pretrained/{file}"),
    log:
        "logs/pretrained/{file}.log",
    wildcard_constraints:
        file=one_of(map(re.escape, EXPERIMENT.checkpoints)),
    resources:
        download=1,
    params:
        job=job(checkpoint_step),
    shell:
        "fdta run {params.job:q} > {log:q} 2>&1"


rule depth:
    input:
        inputs(depth_step),
    output:
        update("data/{dataset}/depth-{split}.json"),
    log:
        "logs/depth/{dataset}-{split}.log",
    resources:
        gpu=GPU_JOB,
    params:
        job=job(depth_step),
        device=DEVICE,
    shell:
        "fdta run {params.job:q} --threads {threads} {params.device} > {log:q} 2>&1"
