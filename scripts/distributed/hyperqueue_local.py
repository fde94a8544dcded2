"""Runs items on a HyperQueue server with workers on this machine: hyperqueue_local.py ITEMS WORKERS

ITEMS is what `--items --format lines` prints. Ends with 0 when every item succeeded.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig


def main() -> None:
    items = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]
    workers = int(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        with LocalCluster(folder) as cluster:
            for _ in range(workers):
                cluster.start_worker(WorkerConfig(cores=1))
            job = Job(max_fails=None)
            for item in items:
                logs = {name: os.path.join(folder, f"{len(job.tasks)}.{name}") for name in ("stdout", "stderr")}
                job.program(item["argv"], cwd=os.getcwd(), crash_limit=5, **logs)
            client = cluster.client()
            done = client.wait_for_jobs([client.submit(job)], raise_on_error=False)
            if not done:
                for log in sorted(Path(folder).glob("*.stderr")):
                    sys.stderr.write(log.read_text())
    sys.exit(0 if done else 1)


if __name__ == "__main__":
    main()
