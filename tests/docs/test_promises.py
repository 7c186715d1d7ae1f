"""tests/README.md: every promise has tests, which exist and carry the markers that the page names."""

import ast
import re
import tomllib

import pytest

from pilot.methods.catalogue import FAMILIES, REFERENCES

from .pages import ROOT

PAGE = (ROOT / "tests/README.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (\d*) ?\|[^|]*\| `([^`]+)` \| ([^|]*) \|$", PAGE, re.MULTILINE)
CONFIGURED = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
MARKERS = [line.split(":")[0] for line in CONFIGURED["markers"]]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def markers_of(test: str) -> set[str]:
    """The markers of a test, its file and its parameters, as its source has them; `few_of` marks the rest of a grid."""
    file, name = test.split("::")
    body = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8")).body
    (function,) = [node for node in body if isinstance(node, ast.FunctionDef) and node.name == name]
    module = [node for node in body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"]
    text = " ".join(map(ast.unparse, [*module, *function.decorator_list]))
    found = set(re.findall(r"pytest\.mark\.(\w+)", text)) & {*MARKERS}
    return found | ({"exhaustive"} if "few_of(" in text else set())


@pytest.mark.parametrize(("test", "markers"), [row[1:] for row in ROWS])
def test_the_test_is_there_with_its_markers(test: str, markers: str) -> None:
    assert markers_of(test) == {*markers.replace("none", "").replace(",", " ").split()}


def test_every_promise_has_a_row() -> None:
    numbers = [int(number) for number in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)]
    assert numbers == list(range(1, 31))


def test_what_make_runs() -> None:
    """`make test` and `make test-exhaustive` take every test between them, `make test-fast` those without a marker."""
    recipes = dict(re.findall(r"^(test\S*): install\n\t\$\(PYTEST\) -m (.*)$", MAKEFILE, re.MULTILINE))
    fast = f'"not ({" or ".join(MARKERS)})"'
    assert recipes == {"test": '"not exhaustive"', "test-fast": fast, "test-exhaustive": "exhaustive"}
    assert "--strict-markers" in CONFIGURED["addopts"]
    told = re.findall(r"^\| `(\w+)` \| .+ \|$", PAGE, re.MULTILINE)
    assert told == MARKERS


def test_the_readme_says_what_continuous_integration_does() -> None:
    """README: `make test` is everything that CI tests; it is CI's last command, so that an empty run fails it."""
    command, comment = re.findall(r"^(make test) +# (.*)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)[0]
    assert comment == "everything that continuous integration tests"
    commands = [line for line in (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines() if line.strip()]
    assert commands[-1].split("#")[0].strip() == command
    assert "PILOT_SMOKE_RESULTS" in "".join(commands)


def test_the_readme_counts_the_methods() -> None:
    """Methods of the catalogue besides Pilot and the references."""
    ours = FAMILIES["Variants of Pilot, ours"]
    others = [name for family, names in FAMILIES.items() if family != REFERENCES for name in names if name != "pilot"]
    said = re.search(
        r"(\d+) other federated methods and (\d+) of our own variants", (ROOT / "README.md").read_text("utf-8")
    )
    assert said and [int(number) for number in said.groups()] == [len(others) - len(ours), len(ours)]
