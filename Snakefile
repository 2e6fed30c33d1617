# From a folder of DOTA images to a comparison table. The stages, in order:
#
#   download -> split -> train -> predict -> merge -> evaluate -> report
#                        complexity --------------------------------^
#
# Settings: configs/config.yaml, overridden by --config key=value. Targets: all_variants (the default),
# any single variant by its name, or any file that a rule makes. `snakemake --list` names the rules.


configfile: "configs/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/tracking.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/score.smk"
include: "workflow/rules/report.smk"


# On a cluster these run locally: its nodes may have no internet, and the rest is quick.
localrules:
    download,
    weights,
    tracking,
    report,


# Finished work is also recorded for DVC, unless DVC called: see dvc.yaml.
onsuccess:
    record_results(dataset.name, GPU_LIMIT),


rule all_variants:
    default_target: True
    input:
        rules.report.output,
        [results_of(run) for run in plan.runs],
        images_to_check,
