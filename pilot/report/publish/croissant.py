"""Croissant 1.1 metadata of a scenario's data sets and partition, with the minimal fields of Croissant RAI 1.0.

Each data set becomes a folder of its records and `croissant.json`, which names them by a relative address and digest.
The eight RAI fields are those that the NeurIPS 2026 track on evaluations and data sets requires. What is known of
generated data is written here; of data read from files, the user states it.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pilot.data.manifest import check_data
from pilot.data.record import COLUMNS
from pilot.data.tables import check_columns
from pilot.io.atomic import read_json, write_json
from pilot.io.digest import sha256_file
from pilot.io.sealed import read_sealed
from pilot.io.verified import check_digest
from pilot.report.publish.about import About, DataStatement

VERSION = "http://mlcommons.org/croissant/1.1"
RAI_VERSION = "http://mlcommons.org/croissant/RAI/1.0"
FILE = "croissant.json"
PARTITION = "partition"
_ALIASES = (
    *("annotation", "arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "excludes", "extract"),
    *("field", "fileObject", "fileProperty", "fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath"),
    *(
        "key",
        "md5",
        "parentField",
        "path",
        "readLines",
        "recordSet",
        "references",
        "regex",
        "repeated",
        "replace",
        "samplingRate",
    ),
    *("sdVersion", "separator", "source", "subField", "transform", "unArchive", "value"),
)
CONTEXT: dict[str, Any] = {
    **{"@language": "en", "@vocab": "https://schema.org/", "sc": "https://schema.org/"},
    **{"cr": "http://mlcommons.org/croissant/", "rai": "http://mlcommons.org/croissant/RAI/"},
    **{"dct": "http://purl.org/dc/terms/", "prov": "http://www.w3.org/ns/prov#", "conformsTo": "dct:conformsTo"},
    **{name: {"@id": f"cr:{name}", "@type": "@json"} for name in ("data", "examples")},
    **{"dataType": {"@id": "cr:dataType", "@type": "@vocab"}},
    **{name: f"cr:{name}" for name in _ALIASES},
}
"""Names of the specification's appendix; `prov` is the ontology of the two fields on origins."""

_TYPES: dict[str, dict[str, Any]] = {
    "image": {"dataType": "sc:ImageObject"},
    "client": {"dataType": "sc:Integer"},
    "references": {"dataType": "sc:Text", "isArray": True, "arrayShape": "-1"},
    "box": {"dataType": "sc:Float", "isArray": True, "arrayShape": "4"},
}
_COLUMNS = {
    "id": "Name of the example, unique within its task.",
    "task": "Kind of the task: vqa, caption or ground.",
    "source": "Data source, by its name in pilot-bench.",
    "image": "The image file, PNG or JPEG.",
    "image_sha256": "Digest of the image file.",
    "instruction": "Request to the model.",
    "answer": "Training target.",
    "references": "Acceptable answers, for scoring.",
    "box": "Grounding only: x1, y1, x2, y2 as fractions of the image's sides.",
    "attributes": "Labels by name, as a JSON object.",
    "split": "train or test.",
}
_ASSIGNED = {
    "task": "Name of the task.",
    "id": "Name of the example in its task's data set.",
    "client": "Number of the client that holds the example.",
    "part": "The client's use of the example: train, validation or test.",
}
GENERATED = DataStatement(
    limitations="Images are composed by a program and sentences follow templates, so scores say how methods compare, "
    "not how well a model understands photographs or free language.",
    biases="Objects, colours, positions and wordings are drawn from the program's own distributions, which card.json "
    "counts; all text is English.",
    personal_information="None: no part of images or text comes from or shows a person.",
    use_cases="Comparison of federated instruction tuning methods at small cost, and tests of such software. Not for "
    "training or assessing models for use.",
    social_impact="No direct impact is known. Methods could be judged by these scores alone although they rank "
    "differently on real data.",
    synthetic=True,
)
SPLIT = DataStatement(
    limitations="Clients are simulated: they are shares of public data sets, not parties that hold data.",
    biases="Shares differ on purpose, by the attribute and the strength that heterogeneity.json and the scenario name.",
    personal_information="None of its own: it contains names of examples and numbers of clients.",
    use_cases="Repetition of runs, and comparison of methods on the same clients.",
    social_impact="No direct impact is known.",
    synthetic=True,
)
_RAI = {
    "limitations": "rai:dataLimitations",
    "biases": "rai:dataBiases",
    "personal_information": "rai:personalSensitiveInformation",
    "use_cases": "rai:dataUseCases",
    "social_impact": "rai:dataSocialImpact",
    "synthetic": "rai:hasSyntheticData",
}


def write_croissant(scenario_dir: Path, about: About, folder: Path) -> list[str]:
    """Write every data set of a scenario, and its partition if there is one, each with its metadata, to `folder`.

    Returns:
        A note for each data set of which something that publication requires is not stated.

    Raises:
        UserError: data, cards or partition are missing or damaged.
    """
    data, notes = scenario_dir / "data", []
    digests = check_data(data)
    for task in digests:
        card = read_json(data / task / "card.json", {"source": str, "origin": str, "kind": str, "splits": dict})
        known = DataStatement() if "intake" in card else GENERATED
        target = _copied(folder / task, (data / task / "records.parquet", data / task / "card.json"))
        counts = ", ".join(f"{split['num_records']} for {name}" for name, split in card["splits"].items())
        fields = {
            "name": f"{scenario_dir.name}-{task}",
            "description": f"Examples of one task, {card['kind']}, each an image with an instruction and its answer: "
            f"{counts}.",
            "keywords": ["instruction tuning", "multimodal", "federated learning", card["kind"]],
            "prov:wasDerivedFrom": card["origin"],
            "prov:wasGeneratedBy": _activity("data build", f"source {card['source']}, seed {card['seed']}"),
            "recordSet": [_records(check_columns(target / "records.parquet", COLUMNS), _COLUMNS, "records")],
        }
        licence = str(card.get("intake", {}).get("licence", ""))
        notes += _write(target, task, fields, known, about, licence if licence.startswith("http") else None)
    if (scenario_dir / PARTITION).is_dir():
        notes += _write_partition(scenario_dir, digests, about, folder / PARTITION)
    return notes


def _write_partition(scenario_dir: Path, digests: Mapping[str, str], about: About, folder: Path) -> list[str]:
    """Write the split over clients, without the images that clients with conditions see: they follow from it."""
    files = [scenario_dir / PARTITION / name for name in ("assignment.parquet", "heterogeneity.json")]
    made = read_sealed(files[1], {"assignment": str, "clients": list})
    check_digest(files[0], made["assignment"])
    target = _copied(folder, files)
    fields = {
        "name": f"{scenario_dir.name}-{PARTITION}",
        "description": f"Which of {len(made['clients'])} clients holds which example of the data sets "
        f"{', '.join(digests)}, and for what.",
        "keywords": ["federated learning", "partition", "heterogeneity"],
        "prov:wasDerivedFrom": [
            f"{scenario_dir.name}-{task}, records.parquet, sha256 {digest}" for task, digest in digests.items()
        ],
        "prov:wasGeneratedBy": _activity("partition", f"scenario {scenario_dir.name}"),
        "recordSet": [_records(check_columns(files[0], list(_ASSIGNED)), _ASSIGNED, "assignment")],
    }
    return _write(target, PARTITION, fields, SPLIT, about, None)


def _write(
    folder: Path, name: str, fields: Mapping[str, Any], known: DataStatement, about: About, licence: str | None
) -> list[str]:
    """Write a data set's metadata; return a note on what is not stated."""
    own = about.data.get(name, DataStatement())
    statement = known.model_copy(update=own.model_dump(exclude_none=True))
    stated = {
        "url": about.url,
        "license": own.licence or licence or about.licence,
        "creator": about.author and about.author.to_json(),
        **{term: getattr(statement, field) for field, term in _RAI.items()},
    }
    metadata = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": [VERSION, RAI_VERSION],
        "datePublished": about.date.isoformat(),
        "version": about.version,
        **({} if about.citation is None else {"citeAs": about.citation}),
        "distribution": [_file(path) for path in sorted(folder.iterdir())],
        **fields,
        **{term: value for term, value in stated.items() if value is not None},
    }
    write_json(folder / FILE, metadata)
    missing = [term for term, value in stated.items() if value is None]
    return [f"{name}: not stated, add to the file of --about: {', '.join(missing)}"] if missing else []


def _copied(folder: Path, files: Sequence[Path]) -> Path:
    folder.mkdir(parents=True)
    for path in files:
        shutil.copyfile(path, folder / path.name)
    return folder


def _activity(command: str, what: str) -> dict[str, str]:
    return {"@type": "prov:Activity", "prov:label": f"pilot-bench {command}", "sc:description": what}


def _file(path: Path) -> dict[str, Any]:
    form = "application/x-parquet" if path.suffix == ".parquet" else "application/json"
    return {
        "@type": "cr:FileObject",
        "@id": path.name,
        "name": path.name,
        "contentUrl": path.name,
        "contentSize": f"{path.stat().st_size} B",
        "encodingFormat": form,
        "sha256": sha256_file(path),
    }


def _records(columns: Sequence[str], meanings: Mapping[str, str], name: str) -> dict[str, Any]:
    """Describe the columns of `<name>.parquet` that have a meaning here."""
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"{name}/{column}",
            "description": meanings[column],
            **_TYPES.get(column, {"dataType": "sc:Text"}),
            "source": {"fileObject": {"@id": f"{name}.parquet"}, "extract": {"column": column}},
        }
        for column in columns
        if column in meanings
    ]
    key = [{"@id": f"{name}/{column}"} for column in ("task", "id") if name == "assignment" or column == "id"]
    return {"@type": "cr:RecordSet", "@id": name, "key": key[0] if len(key) == 1 else key, "field": fields}
