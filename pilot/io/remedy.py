"""Commands that recreate a damaged or missing file of a results folder, by the file's path."""

from pathlib import Path

_STAGE = "Run `pilot-bench {} --scenario {{scenario}} --profile {{profile}}`."
_TRAIN = "Run `pilot-bench train` for this run again: it resumes from the last complete round."
REMEDIES = (
    ("tiny_llava_checkpoint/*", "Rebuild it with `snakemake --cores 2 backbone`, or install pilot-bench again.", 0),
    ("eval/samples.jsonl", "Run `pilot-bench evaluate {run}` again.", 0),
    ("eval/*/samples.jsonl", "Run `pilot-bench evaluate {run}` again.", 1),
    ("eval/*/*", "Run `pilot-bench evaluate --no-answers {run}` again.", 1),
    ("eval/*", "Run `pilot-bench evaluate --no-answers {run}` again.", 0),
    ("node-*/*", "Run `pilot-bench deploy nodes` for the scenario again, and copy the folder to its node.", 0),
    ("federation.json", "Run `pilot-bench deploy nodes` for the scenario again.", 0),
    ("pilot_model.*", "Give a folder that `pilot-bench export` wrote.", 0),
    ("data/manifest.json", _STAGE.format("data build"), 1),
    ("data/*/*", _STAGE.format("data build"), 2),
    ("partition/*", _STAGE.format("partition"), 1),
    ("features/*", _STAGE.format("backbone features"), 1),
    ("tuning/*.json", "Run `pilot-bench tune` for this method again.", 0),
    ("tables/*", "Run `pilot-bench tables` for this scenario again.", 0),
    ("checkpoint/*/*", _TRAIN, 0),
    ("clients/*/*", _TRAIN, 0),
    *((name, _TRAIN, 0) for name in ("manifest.json", "config.json", "rounds.jsonl", "ledger.json", "timing.json")),
)
"""Pattern for the end of a path (the first match counts), sentence, and levels up to the scenario's folder."""


def remedy(path: Path) -> str:
    """Return one sentence that tells how to recreate `path`."""
    above = path.absolute().parents
    for pattern, sentence, depth in REMEDIES:
        if path.match(pattern) and len(above) > depth + 1:
            return sentence.format(run=path.parent.parent, scenario=above[depth].name, profile=above[depth + 1].name)
    return "Restore it or recreate it."
