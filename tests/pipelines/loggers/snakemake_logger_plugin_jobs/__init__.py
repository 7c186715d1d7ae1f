"""A Snakemake logger for tests: beside what a person reads, one line `job {...}` of JSON per job that is announced."""

import json
import sys
from logging import LogRecord

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

FIELDS = ("rule_name", "rule_msg", "input", "output", "log", "benchmark", "threads")


class LogHandler(LogHandlerBase):
    """Prints to standard error, which is read together with Snakemake's own output."""

    writes_to_stream = False  # else Snakemake would print nothing itself
    writes_to_file = False
    has_filter = False
    has_formatter = False
    needs_rulegraph = False

    def emit(self, record: LogRecord) -> None:
        """Announce a job."""
        if getattr(record, "event", None) is LogEvent.JOB_INFO:
            job = {name: getattr(record, name) for name in FIELDS}
            job |= {name: dict(getattr(record, name).items()) for name in ("wildcards", "resources")}
            # One write: `print` makes two, and a job that runs may say something in between.
            sys.stderr.write(f"job {json.dumps(job, default=str)}\n")
            sys.stderr.flush()
