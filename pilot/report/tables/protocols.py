"""Tables of further protocols (`curves.csv` and others), and how `compare --show` prints them."""

from collections.abc import Mapping, Sequence
from typing import Any

from pilot.report.numbers.conditions import ConditionRow, condition_rows
from pilot.report.numbers.cross_task import FairnessRow, MatrixRow, fairness_rows, matrix_rows
from pilot.report.numbers.curves import CurveRow, TargetRow, curve_rows, target_rows
from pilot.report.numbers.forgetting import ForgettingRow, forgetting_rows
from pilot.report.numbers.summary import Group
from pilot.report.numbers.unseen import UnseenRow, unseen_rows
from pilot.report.tables.render import column_names

PROTOCOL_TABLES: Mapping[str, str] = {
    "curves": "Headline metrics over rounds, bytes and steps",
    "targets": "First evaluated round after which a target is reached, and the area under the curve",
    "matrix": "Every client's model on every task's test set",
    "fairness": "Own task, other tasks, and how clients differ, on a scale from untuned (0) to central (1)",
    "unseen": "Clients and questions that took no part in training",
    "conditions": "Test images under the imaging conditions of clients",
    "forgetting": "What the backbone could do before, after tuning",
}
"""Names of the tables and their titles."""


def protocol_tables(groups: Sequence[Group], only: str | None = None) -> dict[str, tuple[list[str], Sequence[Any]]]:
    """Return the columns and rows of the tables by name, or of `only` one."""
    found: dict[str, tuple[list[str], Sequence[Any]]] = {}
    if only in (None, "curves", "targets"):
        curves = curve_rows(groups)
        found["curves"] = column_names(CurveRow), curves
        found["targets"] = column_names(TargetRow), target_rows(groups, curves)
    if only in (None, "matrix"):
        found["matrix"] = column_names(MatrixRow), matrix_rows(groups)
    if only in (None, "fairness"):
        found["fairness"] = column_names(FairnessRow), fairness_rows(groups)
    if only in (None, "unseen"):
        found["unseen"] = column_names(UnseenRow), unseen_rows(groups)
    if only in (None, "conditions"):
        found["conditions"] = column_names(ConditionRow), condition_rows(groups)
    if only in (None, "forgetting"):
        found["forgetting"] = column_names(ForgettingRow), forgetting_rows(groups)
    return found if only is None else {only: found[only]}
