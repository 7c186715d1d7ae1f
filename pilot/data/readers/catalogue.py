"""Sources that are read from files, by name."""

from pilot.data.readers import imported, llava_json, own
from pilot.data.readers.file_source import FileSource
from pilot.data.readers.official import OFFICIAL

_UNKNOWN = "not known to this project: state it where you publish results"

READERS: dict[str, FileSource] = {
    "llava-json": FileSource(
        llava_json.read,
        llava_json.Options,
        None,
        "instruction file in LLaVA's form (id, image, conversations)",
        _UNKNOWN,
    ),
    "own": FileSource(own.read, own.Options, None, "the user's own file", _UNKNOWN),
    "imported": FileSource(
        imported.read,
        imported.Options,
        None,
        "records that `pilot-bench data import` wrote; their data card says where they come from",
        _UNKNOWN,
        own_ids=True,
    ),
    **OFFICIAL,
}
