# data/DATASET/SPLIT/SEQUENCE: frames, ground truth, depth. The sequence map is written last and stands for the split.


rule render:
    input:
        "settings/{dataset}/data.json",
    output:
        "data/{dataset}/seqmaps/{split}.txt",
        "data/{dataset}/seqmaps/{split}.json",
    log:
        "logs/render/{dataset}-{split}.log",
    wildcard_constraints:
        dataset=one_of(RENDERED),
    shell:
        "fdta data render {wildcards.dataset} {wildcards.split} {CHOICE} > {log} 2>&1"


# Downloads wait for one another, as the network has the same speed for one as for many.
rule get_data:
    input:
        "settings/{dataset}/data.json",
    output:
        "data/{dataset}/seqmaps/{split}.txt",
        "data/{dataset}/seqmaps/{split}.json",
    log:
        "logs/data/{dataset}-{split}.log",
    wildcard_constraints:
        dataset=one_of(CATALOGUED),
    resources:
        download=1,
    shell:
        "fdta data get {wildcards.dataset} {wildcards.split} {CHOICE} > {log} 2>&1"


rule get_weights:
    output:
        "pretrained/{file}",
    log:
        "logs/pretrained/{file}.log",
    wildcard_constraints:
        file=one_of(map(re.escape, PARAMS.checkpoints)),
    resources:
        download=1,
    shell:
        "fdta weights get {wildcards.file} --output {output} {CHOICE} > {log} 2>&1"


def teacher_weights(wildcards):
    data = PARAMS.dataset(wildcards.dataset)
    return [] if data.teacher == "rendered" or data.teacher_weights is None else data.teacher_weights


rule depth:
    input:
        "settings/{dataset}/depth.json",
        the_sequences,
        weights=teacher_weights,
    output:
        "data/{dataset}/depth-{split}.json",
    log:
        "logs/depth/{dataset}-{split}.log",
    resources:
        gpu=GPU_JOB,
    shell:
        "fdta depth {wildcards.dataset} {wildcards.split} --output {output} --threads {threads} {DEVICE} {CHOICE}"
        " > {log} 2>&1"
