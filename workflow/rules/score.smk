# From a checkpoint to detections, merged results and scores; and the cost of a variant. A finished training
# is scored before the next one begins, and is in the leaderboard from then on.


rule predict:
    input:
        unpack(
            needs(
                "predict",
                checkpoint=[rules.train.output.checkpoint],
                patches=[plan.test_patches / "manifest.json"],
            )
        ),
    output:
        detections=layout.detections(dataset.name, "{run}"),
    log:
        log_file("predict"),
    benchmark:
        benchmark_file("predict")
    priority: 8  # above any training, so that scores come early
    conda:
        "../envs/tiltbox.yaml"
    threads: min(plan.gpus, 1) * 4 or cpu_threads
    resources:
        gpu=min(plan.gpus, 1),  # minutes; a training may have GPUs of several nodes
        mem_mb=6000 + 6000 * min(plan.gpus, 1),
        runtime=720,
    params:
        variant=lambda wildcards: variant_of(wildcards),
        patches=plan.test_patches,
        dataset=plan.workflow.dataset,
        schedule=plan.schedule_name,
        gpus=min(plan.gpus, 1),
        job=job("predict"),
    shell:
        "TILTBOX_JOB={params.job} tiltbox predict {params.variant} --checkpoint {input.checkpoint} --patches {params.patches}"
        " --out {output.detections} --dataset {params.dataset:q} --schedule {params.schedule:q}"
        " --gpus {params.gpus} > {log} 2>&1"


rule merge:
    input:
        unpack(needs("merge", detections=rules.predict.output)),
    output:
        task1=[
            layout.task1(dataset.name, "{run}") / f"Task1_{name}.txt"
            for name in dataset.classes
        ],
        submission=layout.task1(dataset.name, "{run}") / "Task1.zip",
    log:
        log_file("merge"),
    benchmark:
        benchmark_file("merge")
    priority: 8
    conda:
        "../envs/tiltbox.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        folder=lambda wildcards: layout.task1(dataset.name, wildcards.run),
        dataset=plan.workflow.dataset,
        job=job("merge"),
    shell:
        "TILTBOX_JOB={params.job} tiltbox merge {input.detections} --out {params.folder} --dataset {params.dataset:q} > {log} 2>&1"


rule evaluate:
    input:
        unpack(
            needs(
                "evaluate",
                task1=rules.merge.output.task1,
                labels=rules.download.output,
                tracking=rules.tracking.output,
            )
        ),
    output:
        metrics=layout.metrics(dataset.name, "{run}"),
        server=layout.metrics(dataset.name, "{run}").with_name("dota.txt"),
        curves=layout.metrics(dataset.name, "{run}").with_name("pr_curves.csv"),
        confusion=layout.metrics(dataset.name, "{run}").with_name("confusion.csv"),
        outcomes=layout.metrics(dataset.name, "{run}").with_name("outcomes.parquet"),
        gallery=layout.gallery(dataset.name, "{run}"),
    log:
        log_file("evaluate"),
    benchmark:
        benchmark_file("evaluate")
    priority: 8
    conda:
        "../envs/tiltbox.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        task1=lambda wildcards: layout.task1(dataset.name, wildcards.run),
        raw=layout.raw(dataset.name) / dataset.test_split,
        results=layout.RESULTS / dataset.name,
        split=dataset.test_split,
        track=tracked,
        dataset=plan.workflow.dataset,
        job=job("evaluate"),
    shell:
        "TILTBOX_JOB={params.job} tiltbox evaluate {params.task1} --labels {params.raw}/labelTxt --images {params.raw}/images"
        " --split {params.split} --dataset {params.dataset:q} --out {output.metrics} {params.track} > {log} 2>&1"
        " && (tiltbox report {params.results} --out {params.results} >> {log} 2>&1 || true)"


rule complexity:
    input:
        unpack(needs("complexity")),
    output:
        counts=layout.complexity(dataset.name, "{variant}"),
    log:
        log_file("complexity", of="{variant}"),
    benchmark:
        benchmark_file("complexity", of="{variant}")
    conda:
        "../envs/tiltbox.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        dataset=plan.workflow.dataset,
        job=job("complexity"),
    shell:
        "TILTBOX_JOB={params.job} tiltbox complexity {wildcards.variant} --out {output.counts} --dataset {params.dataset:q} > {log} 2>&1"
