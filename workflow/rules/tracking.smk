# The MLflow database, created once: stages that create it at the same time break it.


rule tracking:
    output:
        touch(layout.LOGS / dataset.name / "tracking.done"),
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
        experiment=dataset.name,
    shell:
        "tiltbox tracking {params.experiment} > {log} 2>&1"
