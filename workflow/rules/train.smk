# Training, one job per variant. Epoch checkpoints stay in train/work, which Snakemake does not know
# and so does not delete: a killed training goes on where it was.


rule train:
    input:
        patches=plan.train_patches / "manifest.json",
        tracking=rules.tracking.output if plan.workflow.track else [],
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
    threads: plan.gpus * (plan.schedule.workers + 1) or plan.schedule.threads or CPU_THREADS
    resources:
        gpu=plan.gpus,
        mem_mb=6000 + 12000 * plan.gpus,
        runtime=5760,
    params:
        patches=plan.train_patches,
        folder=lambda wildcards: layout.checkpoint(
            dataset.name, wildcards.variant
        ).parent,
        setting=DATASET_SETTING,
        schedule=plan.schedule_name,
        gpus=plan.gpus,
        track=lambda wildcards: tracked(wildcards.variant),
        settings=lambda wildcards: plan.depends_on(wildcards.variant),
    shell:
        "tiltbox train {wildcards.variant} --patches {params.patches} --out {params.folder}"
        " --dataset {params.setting:q} --schedule {params.schedule:q} --gpus {params.gpus} {params.track}"
        " > {log} 2>&1"
