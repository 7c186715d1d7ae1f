"""Write the run folder of a method without a model: the usual files, without rounds or messages."""

from collections.abc import Mapping
from pathlib import Path

from pilot.federation.ledger import Ledger
from pilot.federation.spec import RunSpec, run_config, write_manifest
from pilot.io.atomic import remove, write_json, write_jsonl


def write_blind_run(spec: RunSpec, digests: Mapping[str, str], run_dir: Path) -> None:
    """Write configuration, empty history, ledger and times, then the manifest; `digests` as in `run_config`."""
    remove(run_dir / "manifest.json")
    config = run_config(spec, vars(spec.make_method()), digests)
    write_json(run_dir / "config.json", config)
    write_jsonl(run_dir / "rounds.jsonl", [])
    write_json(run_dir / "ledger.json", Ledger(0).to_json())
    write_json(run_dir / "timing.json", dict.fromkeys(("wall_seconds", "train_seconds", "aggregate_seconds"), 0.0))
    write_manifest(run_dir, config)
