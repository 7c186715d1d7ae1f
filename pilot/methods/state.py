"""Named tensors: the parameter group of a name, and parts of a state by group."""

from collections.abc import Collection, Mapping

from torch import Tensor

State = dict[str, Tensor]
"""Tensors by parameter name. The text before a name's first "." is its parameter group."""


def group_of(name: str) -> str:
    """Return the parameter group of a name: `text_adapter` for `text_adapter.layers.0.q_proj.lora_A`."""
    return name.split(".", 1)[0]


def belongs(name: str, groups: Collection[str]) -> bool:
    """Return whether a tensor belongs to one of `groups`, each a group or `group:part` (see `Phase`)."""
    group, words = group_of(name), name.rsplit(".", 2)
    return group in groups or f"{group}:{words[-1]}" in groups or f"{group}:{'.'.join(words[-2:])}" in groups


def select(state: Mapping[str, Tensor], groups: Collection[str]) -> State:
    """Return the part of `state` that belongs to `groups`; tensors are not copied."""
    return {name: value for name, value in state.items() if belongs(name, groups)}


def without(state: Mapping[str, Tensor], groups: Collection[str]) -> State:
    """Return the part of `state` that does not belong to `groups`; tensors are not copied."""
    return {name: value for name, value in state.items() if not belongs(name, groups)}


def prefixed(state: Mapping[str, Tensor], group: str) -> State:
    """Put all names under another group: `control.text_adapter.a` for `text_adapter.a`."""
    return {f"{group}.{name}": value for name, value in state.items()}


def unprefixed(state: Mapping[str, Tensor], group: str) -> State:
    """Return the tensors that `prefixed` put under a group, under their original names."""
    start = f"{group}."
    return {name[len(start) :]: value for name, value in state.items() if name.startswith(start)}


def view_like(flat_D: Tensor, state: Mapping[str, Tensor]) -> State:
    """Return views of `flat_D` with the names and shapes of `state`, in its order."""
    parts = flat_D.split([value.numel() for value in state.values()])
    return {name: part.view(state[name].shape) for name, part in zip(state, parts, strict=True)}
