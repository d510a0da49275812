"""What environment variables tell about a launch: none, torchrun's, srun's, or one that is none."""

from dataclasses import astuple

import pytest

from quantum_diffusion.errors import ConfigError
from quantum_diffusion.pipeline.launch import Launch, find_launch

TORCHRUN = {
    "WORLD_SIZE": "4",
    "RANK": "3",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "GROUP_RANK": "1",
    "MASTER_ADDR": "node7",
    "MASTER_PORT": "29500",
}
SBATCH = {  # what a job's script has before any srun
    "SLURM_JOB_ID": "1234567",
    "SLURM_JOB_NAME": "train",
    "SLURM_NTASKS": "4",
    "SLURM_NTASKS_PER_NODE": "2(x1)",
    "SLURM_TASKS_PER_NODE": "2(x3),1",
    "SLURM_NODELIST": "node[3-5]",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}
SRUN = SBATCH | {
    "SLURM_STEP_ID": "2",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_STEP_NODELIST": "node[04-05]",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (TORCHRUN, (4, 3, 1, "node7", 29500, False)),
        ({**TORCHRUN, "LOCAL_WORLD_SIZE": ""}, (4, 3, 1, "node7", 29500, False)),
        ({**TORCHRUN, "MASTER_PORT": " 29500 "}, (4, 3, 1, "node7", 29500, False)),
        (SRUN, (4, 3, 1, "node04", 15000 + 4567 + 2, True)),
        (SRUN | {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "4000"}, (4, 3, 1, "10.0.0.1", 4000, True)),
        (SRUN | {"SLURM_STEP_NODELIST": "gpu-a3,gpu-b[1,4]"}, (4, 3, 1, "gpu-a3", 15000 + 4567 + 2, True)),
        (SRUN | {"SLURM_NTASKS": "", "SLURM_TASKS_PER_NODE": "?"}, (4, 3, 1, "node04", 15000 + 4567 + 2, True)),
        (SRUN | {"SLURM_JOB_NAME": "bash", "SLURM_PTY_PORT": "1"}, (4, 3, 1, "node04", 15000 + 4567 + 2, True)),
        (SRUN | TORCHRUN, (4, 3, 1, "node7", 29500, False)),  # torchrun in every task
    ],
)
def test_a_launch_of_several_processes(environment: dict[str, str], expected: tuple[object, ...]) -> None:
    assert astuple(find_launch(environment, at_terminal=False) or Launch(1, 0, 0, "", 0)) == expected


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WORLD_SIZE": "", "RANK": "", "LOCAL_RANK": "", "MASTER_ADDR": ""},
        {"WORLD_SIZE": "1"},
        {"WORLD_SIZE": "1", "RANK": "0", "MASTER_ADDR": "pod-0", "MASTER_PORT": "23456"},  # a pod of its own
        {"RANK": "3"},
        {"LOCAL_RANK": "x", "MASTER_ADDR": "node7", "MASTER_PORT": "?"},
        SBATCH,
        SBATCH | {"SLURM_ARRAY_JOB_ID": "1234560", "SLURM_ARRAY_TASK_ID": "7"},
        SBATCH | {"SLURM_JOB_NAME": "interactive"},
        SRUN | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
        SRUN | {"SLURM_STEP_NUM_TASKS": ""},
        {"SLURM_NTASKS": "2", "SLURM_PROCID": "1"},
        {"OMPI_COMM_WORLD_SIZE": "1"},
        SBATCH | {"PMI_SIZE": "4"},  # srun's shell has it, too
    ],
)
def test_one_process_is_no_launch(environment: dict[str, str]) -> None:
    assert find_launch(environment, at_terminal=False) is None


def test_what_is_typed_in_a_shell_of_a_step_is_one_process() -> None:
    """`srun -n 4 --pty bash`; torchrun, which may be typed there, starts several."""
    assert find_launch(SRUN, at_terminal=True) is None
    assert find_launch(SRUN | TORCHRUN, at_terminal=True) is not None


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE='abc'.*whole number.*unset WORLD_SIZE"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE='0'"),
        ({"WORLD_SIZE": "-2"}, "WORLD_SIZE='-2'"),
        ({"WORLD_SIZE": "2.0"}, r"WORLD_SIZE='2.0'"),
        ({"WORLD_SIZE": "9" * 5000}, "WORLD_SIZE='999"),
        (
            {"WORLD_SIZE": "2"},
            "WORLD_SIZE=2.*RANK, LOCAL_RANK, MASTER_ADDR and MASTER_PORT are not set.*torchrun.*unset WORLD_SIZE",
        ),
        ({**TORCHRUN, "LOCAL_RANK": ""}, "WORLD_SIZE=4.*but LOCAL_RANK is not set"),
        ({**TORCHRUN, "RANK": "4"}, "RANK='4'.*0 to 3.*unset WORLD_SIZE"),
        ({**TORCHRUN, "RANK": "-1"}, "RANK='-1'"),
        ({**TORCHRUN, "LOCAL_RANK": "one"}, "LOCAL_RANK='one'"),
        ({**TORCHRUN, "MASTER_PORT": "0"}, "MASTER_PORT='0'.*1 to 65535"),
        ({**TORCHRUN, "MASTER_PORT": "65536"}, "MASTER_PORT='65536'"),
        (SRUN | {"SLURM_STEP_NUM_TASKS": "2(x1)"}, r"SLURM_STEP_NUM_TASKS='2\(x1\)'.*unset SLURM_STEP_NUM_TASKS"),
        (SRUN | {"SLURM_PROCID": ""}, "SLURM_STEP_NUM_TASKS=4.*but SLURM_PROCID is not set.*srun"),
        (SRUN | {"SLURM_PROCID": "9"}, "SLURM_PROCID='9'.*0 to 3"),
        (SRUN | {"SLURM_JOB_ID": "job"}, "SLURM_JOB_ID='job'"),
        (SRUN | {"SLURM_STEP_NODELIST": ""}, "but SLURM_STEP_NODELIST is not set"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "mpirun.*OMPI_COMM_WORLD_SIZE=2.*torchrun"),
        (SBATCH | {"OMPI_COMM_WORLD_SIZE": "2"}, "OMPI_COMM_WORLD_SIZE=2"),
        ({"PMI_SIZE": "2"}, "PMI_SIZE=2"),
    ],
)
def test_a_launch_that_is_none_is_named_in_one_line(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        find_launch(environment, at_terminal=False)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400
