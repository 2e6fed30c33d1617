# The comparison of all variants, and a target for each of them alone.


rule report:
    input:
        unpack(
            needs(
                "report",
                results=map(results_of, plan.runs),
                facts=[layout.training_facts(dataset.name, run) for run in plan.runs],
                counts=[
                    layout.complexity(dataset.name, name) for name in plan.variants
                ],
            )
        ),
    output:
        markdown=layout.leaderboard(dataset.name, "md"),
        csv=layout.leaderboard(dataset.name, "csv"),
        html=layout.leaderboard(dataset.name, "html"),
    log:
        layout.LOGS / dataset.name / "report.log",
    benchmark:
        layout.BENCHMARKS / dataset.name / "report.tsv"
    conda:
        "../envs/tiltbox.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        folder=layout.RESULTS / dataset.name,
        job=job("report"),
    shell:
        "TILTBOX_JOB={params.job} tiltbox report {params.folder} --out {params.folder} > {log} 2>&1"


for variant in plan.variants:

    rule:
        name:
            variant
        input:
            [results_of(run) for run in plan.runs_of(variant)],
            layout.complexity(dataset.name, variant),
