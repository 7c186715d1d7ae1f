"""Methods of other packages: what is found, what each mistake says, and on which files a run depends."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pilot.config.load import load_profile, load_scenario
from pilot.config.variant import check_methods
from pilot.errors import UserError
from pilot.federation.spec import RunSpec
from pilot.methods.catalogue import known_methods
from pilot.methods.plugins import plugin_digest, plugins
from pilot.plan.architecture import Architecture
from pilot.plan.plan import plan_run
from pilot.provenance import stage_digest, stage_sources
from pilot.registry import make_method, method_class

METHOD = """\
from dataclasses import dataclass
from baselines.fedavg import FedAvg

@dataclass(frozen=True, kw_only=True)
class {name}(FedAvg):
    name = "{method}"
    strength: float = 1.0
"""
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a module and a package's metadata with one entry point on the path, as pip does; returns the module."""
    plugins.cache_clear()
    stage_digest.cache_clear()

    def add(method: str, value: str, source: str = "", file: str | None = None) -> Path:
        folder = tmp_path / f"site{len(list(tmp_path.iterdir()))}"
        metadata = folder / f"{folder.name}-1.0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {folder.name}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[pilot_bench.methods]\n{method} = {value}\n")
        module = folder / (file or f"{value.partition(':')[0]}.py")
        module.parent.mkdir(parents=True, exist_ok=True)
        module.write_text(source)
        monkeypatch.syspath_prepend(folder)
        plugins.cache_clear()
        return module

    yield add
    plugins.cache_clear()
    stage_digest.cache_clear()


def test_a_method_is_found_and_made(install: Install) -> None:
    install("found_here", "plug_found:Found", METHOD.format(name="Found", method="found_here"))
    assert vars(make_method("found_here", {"strength": 2})) == {"strength": 2.0}
    check_methods("scenario mine", "methods", ["found_here"], known_methods())
    with pytest.raises(UserError, match="unknown method 'found_her'; did you mean 'found_here'"):
        method_class("found_her")


def test_a_plan_asks_the_method(install: Install) -> None:
    """The example's messages are FedAvg's; its penalty keeps no copy of B, which is squared as it is."""
    example = Path(__file__).resolve().parents[1] / "examples" / "fedmedian_lora" / "fedmedian_lora.py"
    install("fedmedian_lora", "fedmedian_lora:FedMedianLora", example.read_text(encoding="utf-8"))
    architecture, scenario, profile = Architecture(), load_scenario("scenario2"), load_profile("llava")
    mine, fedavg = (
        plan_run(RunSpec(scenario, profile, name, 0), architecture) for name in ("fedmedian_lora", "fedavg")
    )
    assert mine.phases(1)[0].extra_copies == 0
    same = [[replace(phase, extra_copies=0) for phase in plan.phases(2)] for plan in (mine, fedavg)]
    assert same[0] == same[1] and (mine.server, mine.leaves, mine.stays) == (fedavg.server, fedavg.leaves, fedavg.stays)


def test_one_package_that_is_on_the_path_twice_is_no_conflict(install: Install) -> None:
    install("twice", "plug_twice:Twice", METHOD.format(name="Twice", method="twice"))
    install("twice", "plug_twice:Twice", METHOD.format(name="Twice", method="twice"))
    assert plugins()["twice"].value == "plug_twice:Twice"


def test_two_packages_cannot_offer_one_name(install: Install) -> None:
    install("same", "plug_one:One")
    install("same", "plug_two:Two")
    with pytest.raises(UserError, match="method 'same': defined twice, as plug_one:One and plug_two:Two"):
        plugins()


def test_a_method_of_the_suite_keeps_its_name(install: Install) -> None:
    install("fedavg", "plug_rival:FedAvg", METHOD.format(name="FedAvg", method="fedavg"))
    with pytest.raises(UserError, match="method 'fedavg': entry point plug_rival:FedAvg .* a method of this suite"):
        method_class("fedavg")
    assert method_class("fedprox").name == "fedprox"


@pytest.mark.parametrize("name", ["FedNew", "fed-new", "fed+new"])
def test_names_are_what_folders_and_rules_can_have(install: Install, name: str) -> None:
    install(name, "plug_named:Named")
    with pytest.raises(UserError, match=r"entry point plug_named:Named .*lower-case letters, digits and underscores"):
        plugins()


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        ("plug_broken", "import no_such_module_anywhere", "cannot be imported .ModuleNotFoundError: .*no_such_module"),
        ("plug_raises", "1 / 0", "cannot be imported .ZeroDivisionError"),
        ("plug_empty", "", "cannot be imported .AttributeError: .*Wanted"),
        ("plug_function", "def Wanted(): ...", "expected a subclass of pilot.methods.base.Method, got <function"),
        ("plug_class", "class Wanted: name = 'wanted'", "expected a subclass of pilot.methods.base.Method, got <class"),
        ("plug_name", METHOD.format(name="Wanted", method="other"), "its attribute name is 'other', expected 'wanted'"),
    ],
)
def test_mistakes_are_explained(install: Install, module: str, source: str, message: str) -> None:
    install("wanted", f"{module}:Wanted", source)
    assert "wanted" in known_methods()  # nothing is imported to find it
    where = rf"method 'wanted': entry point {module}:Wanted \(group pilot_bench.methods\): "
    with pytest.raises(UserError, match=where + message):
        make_method("wanted", {})


def test_runs_depend_on_the_module(install: Install) -> None:
    module = install("edited", "plug_edited:Edited", METHOD.format(name="Edited", method="edited"))
    before, of_others = stage_digest("train", "edited"), stage_digest("train", "fedavg")
    module.write_text(module.read_text() + "# changed\n")
    stage_digest.cache_clear()
    assert stage_digest("train", "edited") != before and stage_digest("train", "fedavg") == of_others
    assert stage_sources("train", "edited") == stage_sources("train", "fedavg")  # which it imports


def test_a_module_that_is_not_python_is_explained(install: Install) -> None:
    install("unread", "plug_unread:Unread", "def\n")
    with pytest.raises(UserError, match=r"method 'unread': .*plug_unread.py:1: invalid syntax"):
        stage_digest("train", "unread")


def test_runs_depend_on_every_file_of_a_package(install: Install) -> None:
    inner = install("nested", "plug_nested.inner.rule:Nested", "", "plug_nested/inner/rule.py")
    (first := inner.parents[1] / "__init__.py").write_text("")
    (helper := inner.parent / "helper.py").write_text("a = 1\n")
    digests = [plugin_digest("nested")]
    for file in (inner, helper, first):
        file.write_text("b = 2\n")
        digests.append(plugin_digest("nested"))
    assert len(set(digests)) == 4


def test_a_module_that_is_gone_is_explained(install: Install) -> None:
    install("gone", "plug_gone:Gone").unlink()
    with pytest.raises(UserError, match="method 'gone': entry point plug_gone:Gone .*module 'plug_gone' is missing"):
        plugin_digest("gone")
