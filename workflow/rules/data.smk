# Images and labels, and the patches that detectors are trained and tested on.


rule download:
    output:
        manifest=layout.raw(dataset.name) / "manifest.json",
    log:
        layout.LOGS / dataset.name / "download.log",
    benchmark:
        layout.BENCHMARKS / dataset.name / "download.tsv"
    conda:
        "../envs/tiltbox.yaml"
    resources:
        mem_mb=2000,
        runtime=720,
    params:
        setting=DATASET_SETTING,
        folder=layout.raw(dataset.name),
        source=fingerprint(
            dataset.source, dataset_keys("splits", "classes", "expected")
        ),
    shell:
        "tiltbox download {params.setting:q} --out {params.folder} > {log} 2>&1"


for role, splits in cut_splits().items():

    rule:
        name:
            f"split_{role}"
        input:
            raw=rules.download.output.manifest,
        output:
            manifest=layout.patches(dataset.name, splits) / "manifest.json",
        log:
            layout.LOGS / dataset.name / f"split_{role}.log",
        benchmark:
            layout.BENCHMARKS / dataset.name / f"split_{role}.tsv"
        conda:
            "../envs/tiltbox.yaml"
        threads: workflow.cores
        resources:
            mem_mb=8000,
            runtime=240,
        params:
            sources=sources(splits),
            folder=layout.patches(dataset.name, splits),
            size=dataset.patch.size,
            overlap=dataset.patch.overlap,
            rates=dataset.patch.rates,
            iof=dataset.patch.iof,
            setting=DATASET_SETTING,
            classes=dataset.classes,
        shell:
            "tiltbox split {params.sources} --out {params.folder} --dataset {params.setting:q}"
            " --size {params.size} --overlap {params.overlap} --rates {params.rates}"
            " --iof {params.iof} --workers {threads} > {log} 2>&1"
