"""A stand-in for kubectl: jobs are run at once in this process's place, and written down in $CLUSTER.

It understands the three calls of pipelines/profiles/kubernetes and nothing else.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

CLUSTER = Path(os.environ["CLUSTER"])


def create() -> None:
    """Take a Job from standard input, run its container's command, and print the Job's name."""
    job = yaml.safe_load(sys.stdin)
    name = f"{job['metadata']['generateName']}{len(list(CLUSTER.iterdir()))}"
    container = job["spec"]["template"]["spec"]["containers"][0]
    log = (CLUSTER / f"{name}.log").open("w")
    done = subprocess.run(container["command"], cwd=container["workingDir"], stdout=log, stderr=subprocess.STDOUT)
    state = "Complete" if done.returncode == 0 else "Failed"
    (CLUSTER / f"{name}.json").write_text(json.dumps({"job": job, "state": state}))
    print(f"job.batch/{name}")


def get(name: str) -> None:
    """Print name and condition of a Job, as the jsonpath of status.sh would; nothing if there is no such Job."""
    path = CLUSTER / f"{name.removeprefix('job.batch/')}.json"
    if path.exists():
        print(f"{path.stem} {json.loads(path.read_text())['state']}", end="")


def main(arguments: list[str]) -> int:
    """Answer a call; 1 while the cluster is away."""
    if "AWAY" in os.environ:
        print("The connection to the server was refused", file=sys.stderr)
        return 1
    if arguments == ["create", "-o", "name", "-f", "-"]:
        create()
    elif arguments[0] == "get" and arguments[2:4] == ["--ignore-not-found", "-o"]:
        get(arguments[1])
    elif arguments[:3] == ["delete", "--ignore-not-found", "--wait=false"]:
        for name in arguments[3:]:
            (CLUSTER / f"{name.removeprefix('job.batch/')}.json").unlink()
    else:
        raise SystemExit(f"not understood: {arguments}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
