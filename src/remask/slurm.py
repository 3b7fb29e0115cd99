"""Trainings handed to SLURM, or to a local stand-in for it, through submitit.

One task a node starts torchrun, whose processes meet at the first node. The command is the same each time the job runs:
it begins the run, or goes on with it where the job was requeued. Before its time is up a job asks the run to stop
after a step, with a checkpoint, and queues again.

submitit hands a job over as a pickle of its own in the submission's folder; it holds the arguments of `Training`, and
is read by the job alone. Results come back in the run folder, never as pickles.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from remask.errors import RunError, UserError

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission

NOTICE = 120
"""Seconds between the request to stop and the end of a job's time."""
PATIENCE = 90.0
"""Seconds that a requeue waits for the run to end after a step."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is asked of the cluster.

    Attributes:
        name: of the job.
        nodes: machines.
        processes: a node.
        minutes: until the job is requeued.
        cpus: cores a process.
        gpus: a node.
        partition: of the cluster; None: its default.
        requeues: how often the job may run out of time and queue again.
        options: further options of sbatch, by their long names.
    """

    name: str
    nodes: int
    processes: int
    minutes: int
    cpus: int = 1
    gpus: int = 0
    partition: str | None = None
    requeues: int = 3
    options: Mapping[str, str] = field(default_factory=dict)


class Training:
    """What each node of a job does: it runs torchrun, and passes on the request to stop.

    Args:
        command: what each process runs, after `python -m`.
        nodes: machines of the job.
        processes: a node.
        cpus: cores a process.
    """

    def __init__(self, command: Sequence[str], *, nodes: int, processes: int, cpus: int) -> None:
        self.command, self.nodes, self.processes, self.cpus = list(command), nodes, processes, cpus
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> None:
        """Trains to the end.

        Raises:
            RunError: the processes of this node failed; their words are in the job's log.
        """
        from submitit import JobEnvironment

        environment = JobEnvironment()
        endpoint = f"{environment.hostnames[0]}:{_port(environment.job_id)}"
        launcher = torchrun(nodes=self.nodes, processes=self.processes, endpoint=endpoint, job=environment.job_id)
        threads = {"OMP_NUM_THREADS": str(self.cpus)}
        self._process = subprocess.Popen(
            [*launcher, *self.command],
            env={**threads, **os.environ},
            # the cluster's notice goes to every process of the job, and would kill those that do not know it
            preexec_fn=lambda: signal.signal(environment._usr_sig(), signal.SIG_IGN),
        )
        while self._process.poll() is None:  # not wait(): a signal's handler looks at the process too
            time.sleep(0.2)
        if self._process.returncode:
            raise RunError(f"training ended with exit code {self._process.returncode}; the job's log says why")

    def checkpoint(self) -> "DelayedSubmission":
        """Asks the run to stop after its step, waits for it, and says how to go on; submitit calls this to requeue."""
        from submitit.core.utils import DelayedSubmission

        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            last = time.monotonic() + PATIENCE
            while self._process.poll() is None and time.monotonic() < last:
                time.sleep(0.2)
        return DelayedSubmission(Training(self.command, nodes=self.nodes, processes=self.processes, cpus=self.cpus))


def torchrun(*, nodes: int, processes: int, endpoint: str, job: str) -> list[str]:
    """The launcher of one node.

    Args:
        nodes: machines that meet.
        processes: a node.
        endpoint: where they meet, HOST:PORT of the first node.
        job: the job's id, which keeps jobs on one machine apart.
    """
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes", str(nodes)]
    launcher += ["--nproc-per-node", str(processes)]
    launcher += (
        ["--standalone"] if nodes == 1 else ["--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint, "--rdzv-id", job]
    )
    return [*launcher, "-m"]


def _port(job: str) -> int:
    """A port that follows from the job's id, so that its nodes agree on it and two jobs hardly ever do."""
    return 20_000 + int("".join(filter(str.isdigit, job)) or 0) % 20_000


def submit(command: Sequence[str], job: Job, *, folder: Path, cluster: Literal["slurm", "local"]) -> str:
    """Hands a command to a cluster.

    Args:
        command: what each process runs, after `python -m`.
        job: what is asked of the cluster.
        folder: for the job's logs; on a cluster all nodes must see it.
        cluster: slurm, or local: processes of this machine.

    Returns:
        The job's id; its logs are `folder/ID_*_log.out` and `.err`.

    Raises:
        UserError: submitit is not installed, or there is no SLURM here.
        RunError: SLURM refused the job.
    """
    executor = _executor(folder, cluster, requeues=job.requeues)
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    executor.update_parameters(**_asked(job, cluster))
    training = Training(command, nodes=job.nodes, processes=job.processes, cpus=job.cpus)
    try:
        return executor.submit(training).job_id
    except (FailedJobError, FailedSubmissionError) as error:
        raise RunError(f"SLURM refused the job: {' '.join(str(error).split())[:500]}") from error


def is_over(job_id: str, *, folder: Path) -> bool:
    """Whether a job has left SLURM: done, failed or cancelled, and not one that queues again.

    Args:
        job_id: as `submit` gave it.
        folder: of its logs.

    Raises:
        UserError: submitit is not installed.
    """
    _installed()
    import submitit

    return submitit.SlurmJob(folder=folder, job_id=job_id).done()


def cancel(job_id: str) -> None:
    """Takes a job away from SLURM; one that is over is left as it is.

    Raises:
        RunError: SLURM cannot be asked.
    """
    try:
        subprocess.run(["scancel", job_id], check=False, capture_output=True)
    except OSError as error:
        raise RunError(f"job {job_id} cannot be cancelled: {error.strerror or error}") from error


def script(command: Sequence[str], job: Job, *, folder: Path) -> str:
    """The sbatch script of a job, and below it as comments what each of its nodes runs.

    Raises:
        UserError: submitit is not installed.
    """
    _installed()
    from submitit.slurm.slurm import SlurmExecutor

    class Writer(SlurmExecutor):
        """Writes scripts where there is no SLURM, too."""

        @classmethod
        def affinity(cls) -> int:
            return 1

    writer = Writer(folder=folder)
    asked = {key.removeprefix("slurm_"): value for key, value in _asked(job, "slurm").items()}
    names = Writer._equivalence_dict()
    writer.update_parameters(**{names.get(key, key): value for key, value in asked.items()})  # pyright: ignore
    text = writer._make_submission_file_text(writer._submitit_command_str, "script")
    launcher = torchrun(
        nodes=job.nodes, processes=job.processes, endpoint="FIRST_NODE:PORT_OF_THE_JOB", job="$SLURM_JOB_ID"
    )
    return f"{text.rstrip()}\n\n# each node runs\n# {' '.join([*launcher, *command])}\n"


def _asked(job: Job, cluster: str) -> dict[str, Any]:
    """A job in submitit's words."""
    shared = {
        "name": job.name,
        "nodes": job.nodes,
        "tasks_per_node": 1,
        "cpus_per_task": job.cpus * job.processes,
        "timeout_min": job.minutes,
    }
    if job.gpus:  # a cluster without GPUs need not know the option
        shared["gpus_per_node"] = job.gpus
    own = {
        "slurm_partition": job.partition,
        "slurm_signal_delay_s": NOTICE,
        "slurm_additional_parameters": dict(job.options) or None,
    }
    return shared | ({key: value for key, value in own.items() if value is not None} if cluster == "slurm" else {})


def _executor(folder: Path, cluster: str, *, requeues: int) -> Any:
    _installed()
    import submitit

    try:
        return submitit.AutoExecutor(folder=folder, cluster=cluster, **{f"{cluster}_max_num_timeout": requeues})
    except RuntimeError as error:  # no srun on the PATH
        raise UserError(
            "there is no SLURM here (srun is not on the PATH): submit from a login node, or give --cluster local"
        ) from error


def _installed() -> None:
    try:
        import submitit  # noqa: F401
    except ImportError:
        raise UserError("remask submit needs submitit: pip install 'remask[slurm]'") from None
