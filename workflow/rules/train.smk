# Training, one job for each variant and seed. Epoch checkpoints stay in train/work, which Snakemake does not
# know and so does not delete: a killed training resumes where it was.


# The weights to start from are downloaded to PyTorch's cache before a job that may have no internet. The mark
# file contains their address.
rule weights:
    output:
        layout.weights_mark(dataset.name, "{variant}"),
    log:
        log_file("weights", of="{variant}"),
    benchmark:
        benchmark_file("weights", of="{variant}")
    priority: 10
    conda:
        "../envs/tiltbox.yaml"
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        address=lambda wildcards: plan.starting_weights(wildcards.variant),
        schedule=plan.schedule_name,
    shell:
        "tiltbox weights {wildcards.variant} --schedule {params.schedule:q} > {log} 2>&1"
        " && printf %s {params.address:q} > {output}"


rule train:
    input:
        unpack(
            needs(
                "train",
                patches=rules.split_train.output,
                tracking=rules.tracking.output,
                weights=rules.weights.output if plan.needs_weights else [],
                validate=(
                    [plan.test_patches / "manifest.json"] if plan.validates else []
                ),
            )
        ),
    output:
        checkpoint=layout.checkpoint(dataset.name, "{run}"),
        config=layout.config(dataset.name, "{run}"),
        history=layout.history(dataset.name, "{run}"),
        facts=layout.training_facts(dataset.name, "{run}"),
    log:
        log_file("train"),
    benchmark:
        benchmark_file("train")
    priority: smaller_first
    conda:
        "../envs/tiltbox.yaml"
    threads: plan.gpus * (plan.schedule.workers + 1) or cpu_threads
    resources:
        gpu=plan.gpus,
        mem_mb=6000 + 12000 * plan.gpus,
        runtime=1440,  # a cluster may end it then; when started again, it resumes
        attempt=lambda wildcards, attempt: attempt,
    params:
        patches=plan.train_patches,
        variant=lambda wildcards: variant_of(wildcards),
        seed=lambda wildcards: seed_of(wildcards),
        folder=lambda wildcards: layout.checkpoint(dataset.name, wildcards.run).parent,
        track=tracked,
        validate=f"--validate {plan.test_patches}" if plan.validates else "",
        dataset=plan.workflow.dataset,
        schedule=plan.schedule_name,
        gpus=plan.gpus,
        job=job("train"),
        launcher=launcher,
    shell:
        "TILTBOX_JOB={params.job} TILTBOX_ATTEMPT={resources.attempt} {params.launcher} tiltbox train {params.variant} --seed {params.seed} --patches {params.patches} --out {params.folder}"
        " --dataset {params.dataset:q} --schedule {params.schedule:q} --gpus {params.gpus} {params.validate} {params.track}"
        " > {log} 2>&1"
