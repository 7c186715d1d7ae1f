"""Trained models for use elsewhere: stock checkpoints, PEFT adapters, and folders that `load` opens again."""

from pilot.export.mixture import ExportedModel, load

__all__ = ["ExportedModel", "load"]
