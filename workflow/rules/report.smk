# The comparison of all variants, and a target for each of them alone. `snakemake --report` shows the pages.

PAGES = [layout.detector_page(dataset.name, variant) for variant in plan.variants]


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
        csv=shown(
            layout.leaderboard(dataset.name, "csv"),
            caption="figures",
            category="Comparison",
            labels={"content": "all figures (CSV)"},
        ),
        html=shown(
            layout.leaderboard(dataset.name, "html"),
            caption="leaderboard",
            category="Comparison",
            labels={"content": "leaderboard"},
        ),
        detectors=[
            shown(
                page,
                caption="detector",
                category="Detectors",
                labels=labels_of(page.stem),
                needed=PAGES,
            )
            for page in PAGES
        ],
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
