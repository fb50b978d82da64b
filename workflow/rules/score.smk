rule score:
    input:
        inputs(score_step),
    output:
        update("scores/{dataset}/{name}/seed-{seed}/{split}.json"),
    log:
        "logs/score/{dataset}/{name}/seed-{seed}/{split}.log",
    params:
        job=job(score_step),
    shell:
        "fdta run {params.job:q} > {log:q} 2>&1"


rule similarity:
    input:
        inputs(similarity_step),
    output:
        update("scores/{dataset}/{name}/seed-{seed}/{split}-similarity.json"),
    log:
        "logs/similarity/{dataset}/{name}/seed-{seed}/{split}.log",
    params:
        job=job(similarity_step),
    shell:
        "fdta run {params.job:q} > {log:q} 2>&1"


rule speed:
    input:
        inputs(speed_step),
    output:
        update("scores/{dataset}/speed.json"),
    log:
        "logs/speed/{dataset}.log",
    # Alone on the machine, so that nothing else is measured; one thread, because more do not help so small a network.
    threads: workflow.cores or 1
    resources:
        gpu=GPU_JOB,
    params:
        job=job(speed_step),
        device=DEVICE,
    shell:
        "fdta run {params.job:q} {params.device} > {log:q} 2>&1"
