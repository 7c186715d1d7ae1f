"""The families: every method of this repository is in one, and docs/studies.md shows those of the zoo."""

import re
from pathlib import Path

from pilot.methods.catalogue import CORE, FAMILIES, METHODS, REFERENCES
from pilot.registry import method_class

STUDIES = Path(__file__).resolve().parents[2] / "docs/studies.md"


def test_every_method_is_in_one_family() -> None:
    assert sum(map(len, FAMILIES.values())) == len(METHODS)


def test_the_page_has_every_family() -> None:
    rows = dict(re.findall(r"^\| ([^|]+) \| (`[^|]+`) \|$", STUDIES.read_text(encoding="utf-8"), re.MULTILINE))
    shown = {family.lower(): tuple(re.findall(r"`(\w+)`", names)) for family, names in rows.items()}
    beyond = {family: tuple(names) for family, names in FAMILIES.items() if family not in (CORE, REFERENCES)}
    assert {family.lower(): names for family, names in beyond.items()} == {
        family: names for family, names in shown.items() if family in {name.lower() for name in beyond}
    }


def test_the_page_names_the_methods_whose_server_is_to_hold_the_mean_product() -> None:
    text = STUDIES.read_text(encoding="utf-8").split("mean their server to hold the mean product:")[1].split(".")[0]
    assert set(re.findall(r"`(\w+)`", text)) == {name for name in METHODS if method_class(name).mean_product}
