# data/DATASET/SPLIT/SEQUENCE: frames, ground truth, depth. The sequence map is written last and stands for the split.


rule render:
    input:
        "settings/{dataset}/render.json",
    output:
        "data/{dataset}/seqmaps/{split}.txt",
    log:
        "logs/render/{dataset}-{split}.log",
    shell:
        "fdta data render {wildcards.dataset} {wildcards.split} {CHOICE} > {log} 2>&1"


rule depth:
    input:
        "settings/{dataset}/depth.json",
        "data/{dataset}/seqmaps/{split}.txt",
    output:
        "data/{dataset}/depth-{split}.json",
    log:
        "logs/depth/{dataset}-{split}.log",
    shell:
        "fdta depth {wildcards.dataset} {wildcards.split} --output {output} {CHOICE} > {log} 2>&1"
