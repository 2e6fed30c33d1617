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
    threads: plan.gpus * (plan.schedule.workers + 1) or cpu_threads
    resources:
        gpu=plan.gpus,
        mem_mb=6000 + 12000 * plan.gpus,
        runtime=1440,  # a cluster may end it then; started again, it goes on
    params:
        patches=plan.train_patches,
        folder=lambda wildcards: layout.checkpoint(
            dataset.name, wildcards.variant
        ).parent,
        track=tracked,
        settings=lambda wildcards: plan.depends_on(wildcards.variant),
        dataset=uncompared(plan.workflow.dataset),
        schedule=uncompared(plan.schedule_name),
        gpus=uncompared(plan.gpus),
    shell:
        "tiltbox train {wildcards.variant} --patches {params.patches} --out {params.folder}"
        " --dataset {params.dataset:q} --schedule {params.schedule:q} --gpus {params.gpus} {params.track}"
        " > {log} 2>&1"
