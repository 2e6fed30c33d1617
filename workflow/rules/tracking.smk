# The MLflow database, created once, since stages that create it at the same time break it. They depend on it
# with and without tracking, so that switching tracking on or off does not train again.


rule tracking:
    output:
        touch(layout.tracking_mark(dataset.name)),
    log:
        layout.LOGS / dataset.name / "tracking.log",
    benchmark:
        layout.BENCHMARKS / dataset.name / "tracking.tsv"
    conda:
        "../envs/tiltbox.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        command=(
            f"tiltbox tracking {dataset.name}"
            if plan.workflow.track
            else "echo not asked for"
        ),
    shell:
        "{params.command} > {log} 2>&1"
