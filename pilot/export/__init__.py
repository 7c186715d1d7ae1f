"""Export of trained models: stock checkpoints, PEFT adapters, and folders that `load` reads."""

from pilot.export.mixture import ExportedModel, load

__all__ = ["ExportedModel", "load"]
