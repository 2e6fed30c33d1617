# Training, one job per variant. Epoch checkpoints stay in train/work, which Snakemake does not know
# and so does not delete: a killed training goes on where it was.


rule train:
    input:
        patches=plan.train_patches / "manifest.json",
        tracking=ancient(rules.tracking.output),
    output:
        checkpoint=layout.checkpoint(dataset.name, "{variant}"),
        config=layout.config(dataset.name, "{variant}"),
        history=layout.history(dataset.name, "{variant}"),
        facts=layout.training_facts(dataset.name, "{variant}"),
    log:
        log_file("train"),
    benchmark:
        benchmark_file("train")
    conda:
        "../envs/tiltbox.yaml"
    threads: GPUS * (plan.schedule.workers + 1) or CPU_THREADS
    resources:
        gpu=GPUS,
        mem_mb=6000 + 12000 * GPUS,
        runtime=1440,  # a cluster may end it then; started again, it goes on
    params:
        patches=plan.train_patches,
        folder=lambda wildcards: layout.checkpoint(
            dataset.name, wildcards.variant
        ).parent,
        track=tracked,
        settings=lambda wildcards: plan.depends_on(wildcards.variant),
    shell:
        "tiltbox train {wildcards.variant} --patches {params.patches} --out {params.folder}"
        " --dataset {DATASET:q} --schedule {SCHEDULE:q} --gpus {GPUS} {params.track}"
        " > {log} 2>&1"
