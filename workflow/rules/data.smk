# Images and labels, and the patches that detectors are trained and tested on.
#
# Download only links a user's folder. The rule that cuts a split notices edits there, so correcting a label in val
# does not train anything again.


rule download:
    input:
        unpack(needs("download")),
    output:
        manifest=layout.raw(dataset.name) / "manifest.json",
    log:
        layout.LOGS / dataset.name / "download.log",
    benchmark:
        layout.BENCHMARKS / dataset.name / "download.tsv"
    priority: 10  # everything except complexity waits for it
    conda:
        "../envs/tiltbox.yaml"
    resources:
        mem_mb=2000,
        runtime=720,
    params:
        folder=layout.raw(dataset.name),
        dataset=plan.workflow.dataset,
        job=job("download"),
    shell:
        "TILTBOX_JOB={params.job} tiltbox download {params.dataset:q} --out {params.folder} > {log} 2>&1"


for role, splits in cut_splits().items():

    rule:
        name:
            f"split_{role}"
        input:
            unpack(needs(f"split_{role}", raw=rules.download.output)),
        output:
            manifest=layout.patches(dataset.name, splits) / "manifest.json",
        log:
            layout.LOGS / dataset.name / f"split_{role}.log",
        benchmark:
            layout.BENCHMARKS / dataset.name / f"split_{role}.tsv"
        priority: 10
        conda:
            "../envs/tiltbox.yaml"
        threads: min(16, CORES)
        resources:
            mem_mb=lambda wildcards, threads: 2000 + 500 * threads,
            runtime=240,
        params:
            sources=sources(splits),
            folder=layout.patches(dataset.name, splits),
            size=dataset.patch.size,
            overlap=dataset.patch.overlap,
            rates=dataset.patch.rates,
            iof=dataset.patch.iof,
            dataset=plan.workflow.dataset,
            job=job(f"split_{role}"),
        shell:
            "TILTBOX_JOB={params.job} tiltbox split {params.sources} --out {params.folder} --dataset {params.dataset:q}"
            " --size {params.size} --overlap {params.overlap} --rates {params.rates}"
            " --iof {params.iof} --workers {threads} > {log} 2>&1"


rule data:
    input:
        [
            layout.patches(dataset.name, splits) / "manifest.json"
            for splits in cut_splits().values()
        ],
