"""The workflow as Snakemake finds it in this folder; the package has it in `pipelines/`, for `pilot-bench run`."""


include: "pipelines/workflow.smk"
