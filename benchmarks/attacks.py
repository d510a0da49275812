"""Runs a hundred commands with mistakes or in unusual environments: expects no tracebacks and no lost data.

Run: python benchmarks/attacks.py [NUMBER ...]; exits with status 1 if a command ends with a traceback, by a signal,
with another status or number of errors than it should, or without its results.
"""

# ruff: noqa: E501  (commands stand as they are typed)

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

FIXTURES = Path(__file__).parents[1] / "tests" / "fixtures" / "first_edition"

SETTINGS = {
    "TRAIN": "training.general.dataset=srv training.training.max_steps=2 training.general.device=cpu",
    "SMALL": "datasets.num_samples=60 datasets.max_gates=5 datasets.n_jobs=1",
    "SAMPLE": f"sample.model_dir={FIXTURES}/m_srv sample.srv=[1,2,2] sample.max_tries=256 sample.num_circuits=1",
    "COMPILE": f"compile.model_dir={FIXTURES}/m_unitary compile.max_tries=64",
}

ERROR, WELL, ANYHOW = "one line of error", "ends well", "well or with one line"

# command, how it must end, file that must exist afterwards
ATTACKS: list[tuple[str, str, str | None]] = [
    # output that cannot be written or displayed, and pictures
    ("quantum-diffusion generate $SMALL datasets.output_path=a1 | true", ANYHOW, "a1/config.yaml"),
    ("quantum-diffusion generate $SMALL datasets.output_path=a2 >/dev/full", ANYHOW, "a2/config.yaml"),
    ("quantum-diffusion generate $SMALL datasets.output_path=a3 >&- 2>&-", ANYHOW, "a3/config.yaml"),
    ("quantum-diffusion train $TRAIN training.general.output_path=a4 | head -1", ANYHOW, "a4/model.safetensors"),
    (
        "quantum-diffusion train $TRAIN training.general.output_path=a5 2>/dev/full >/dev/full",
        ANYHOW,
        "a5/model.safetensors",
    ),
    (
        "quantum-diffusion evaluate evaluation.dataset=srv evaluation.model_dir=m_srv evaluation.num_samples=20 evaluation.save_folder=a6 | true",
        ANYHOW,
        "a6/metrics.json",
    ),
    (
        "MPLBACKEND=module://matplotlib_inline.backend_inline quantum-diffusion evaluate evaluation.dataset=srv evaluation.model_dir=m_srv evaluation.num_samples=20 evaluation.save_folder=a7",
        WELL,
        "a7/metrics.json",
    ),
    (
        "MPLBACKEND=nonsense quantum-diffusion inspect inspect.dataset=srv inspect.save_folder=a8",
        WELL,
        "a8/inspection.json",
    ),
    (
        "LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 quantum-diffusion sample $SAMPLE sample.save_folder=a9",
        WELL,
        "a9/00001.qasm",
    ),
    (
        "PYTHONIOENCODING=ascii COLUMNS=20 NO_COLOR=1 TERM=dumb quantum-diffusion compile $COMPILE compile.target=cx.npy compile.save_folder=a10",
        ANYHOW,
        "a10",
    ),
    ("quantum-diffusion inspect inspect.dataset=srv | head -1", ANYHOW, None),
    ("quantum-diffusion train --help | head -1", ANYHOW, None),
    ("quantum-diffusion --help >/dev/full", ANYHOW, None),
    ("COLUMNS=1 quantum-diffusion runs runs.folder=.", ANYHOW, None),
    ("quantum-diffusion export-genqc export.dataset=srv export.output_path=a11 >/dev/full", ANYHOW, "a11/config.yaml"),
    (
        "quantum-diffusion report 'report.sources=[srv,m_srv]' report.output_path=a13.html >/dev/full",
        ANYHOW,
        "a13.html",
    ),
    (
        "HOME=/nonexistent MPLCONFIGDIR=/proc/nope quantum-diffusion evaluate evaluation.dataset=srv evaluation.model_dir=m_srv evaluation.num_samples=20 evaluation.save_folder=a12",
        ANYHOW,
        "a12/metrics.json",
    ),
    # paths, file systems and permissions
    ("quantum-diffusion generate $SMALL \"datasets.output_path='b[1]*?'\"", WELL, "b[1]*?/config.yaml"),
    (
        "quantum-diffusion train $TRAIN \"training.general.output_path='my dir/a=b'\"",
        WELL,
        "my dir/a=b/model.safetensors",
    ),
    ("quantum-diffusion train $TRAIN training.general.output_path=b3 training.general.model_name=../out", ERROR, None),
    (
        "quantum-diffusion train $TRAIN training.general.output_path=b3 training.general.model_name=/tmp/out",
        ERROR,
        None,
    ),
    ("quantum-diffusion generate $SMALL datasets.output_path=dangling", ANYHOW, None),
    ("quantum-diffusion generate $SMALL datasets.output_path=r.txt", ERROR, None),
    ("quantum-diffusion generate $SMALL datasets.output_path=/proc/x", ERROR, None),
    ("quantum-diffusion generate $SMALL datasets.output_path=fifo", ERROR, None),
    (
        "umask 027; quantum-diffusion generate $SMALL datasets.output_path=b6; test $(stat -c %a b6) = 750",
        WELL,
        "b6/config.yaml",
    ),
    ("env -u HOME quantum-diffusion train $TRAIN training.general.output_path=b7", WELL, "b7/model.safetensors"),
    (
        "TMPDIR=\"$PWD/my dir\" quantum-diffusion train -m $TRAIN training.general.seed=1,2 training.general.output_path=b8 'training.general.model_name=s${hydra:job.num}'",
        WELL,
        "b8/s1/model.safetensors",
    ),
    ("TMPDIR=/nonexistent quantum-diffusion train $TRAIN training.general.output_path=b9", ANYHOW, None),
    ("cd 'my dir' && quantum-diffusion sample $SAMPLE", WELL, None),
    ("mkdir gone && cd gone && rmdir ../gone && quantum-diffusion inspect inspect.dataset=srv", ERROR, None),
    # sizes, environments, presets, options, files
    (
        "quantum-diffusion train $TRAIN training.general.output_path=c1 training.training.num_threads=100000",
        ERROR,
        None,
    ),
    (
        "quantum-diffusion train $TRAIN training.general.output_path=c1 training.training.num_workers=100000000",
        ERROR,
        None,
    ),
    (
        "quantum-diffusion train $TRAIN training.general.output_path=c1 training.model.params.width=10000000",
        ERROR,
        None,
    ),
    ("quantum-diffusion train $TRAIN training.general.output_path=c1 training.model.params.depth=1000000", ERROR, None),
    ("quantum-diffusion generate $SMALL datasets.output_path=c1 datasets.seed=1e400", ERROR, None),
    ("WORLD_SIZE=2 quantum-diffusion train $TRAIN training.general.output_path=c2", ERROR, None),
    ("WORLD_SIZE=abc quantum-diffusion train $TRAIN training.general.output_path=c2", ERROR, None),
    ("WORLD_SIZE= RANK= quantum-diffusion train $TRAIN training.general.output_path=c3", WELL, "c3/model.safetensors"),
    ("RANK=0 LOCAL_RANK=0 WORLD_SIZE=1 quantum-diffusion train $TRAIN training.general.output_path=c4", ANYHOW, None),
    (
        "SLURM_JOB_ID=5 SLURM_NTASKS='2(x1)' SLURM_PROCID=0 quantum-diffusion train $TRAIN training.general.output_path=c5",
        ANYHOW,
        None,
    ),
    ("quantum-diffusion train training=t.yaml $TRAIN training.general.output_path=c6", ERROR, None),
    ("quantum-diffusion train training=d.yaml $TRAIN training.general.output_path=c6", ERROR, None),
    ("quantum-diffusion train training=l.yaml $TRAIN training.general.output_path=c6", ERROR, None),
    ("quantum-diffusion train training=nan.yaml $TRAIN training.general.output_path=c6", ERROR, None),
    ("quantum-diffusion train training=self.yaml $TRAIN training.general.output_path=c6", ERROR, None),
    ("quantum-diffusion train training=bomb.yaml $TRAIN", ERROR, None),
    ("quantum-diffusion train training.general.dataset=stream:bomb.yaml training.general.output_path=c7", ERROR, None),
    ("quantum-diffusion train training.general.dataset=stream:big.yaml training.general.output_path=c7", ERROR, None),
    ("quantum-diffusion train -c job $TRAIN --resolve | head -3", WELL, None),
    ("quantum-diffusion train --cfg hydra", WELL, None),
    ("quantum-diffusion train --info all $TRAIN", ANYHOW, None),
    ("quantum-diffusion train --info=searchpath $TRAIN", ANYHOW, None),
    ("quantum-diffusion train --hydra-help", ANYHOW, None),
    ("quantum-diffusion train -cn config $TRAIN", ERROR, None),
    ("quantum-diffusion train hydra.run.dir=/proc/x $TRAIN", ERROR, None),
    ("quantum-diffusion train 'hydra.run.dir=${oc.env:NOPE}' $TRAIN", ERROR, None),
    (
        "quantum-diffusion train hydra/job_logging=none hydra.verbose=true $TRAIN training.general.output_path=c8",
        ANYHOW,
        "c8/model.safetensors",
    ),
    ("quantum-diffusion train hydra.job.chdir=true $TRAIN training.general.output_path=c9", ANYHOW, None),
    ("quantum-diffusion train -m training.training.learning_rate='interval(0.001,0.1)' $TRAIN", ERROR, None),
    ("quantum-diffusion train -m hydra/sweeper=nope $TRAIN", ERROR, None),
    (
        "quantum-diffusion sample sample.model_dir=m_srv sample.srv=1,2,2 sample.num_circuits=1 sample.max_tries=256",
        WELL,
        None,
    ),
    ("quantum-diffusion compile $COMPILE compile.target=half.qasm", ERROR, None),
    ("quantum-diffusion compile $COMPILE compile.target=empty.qasm", ERROR, None),
    ("quantum-diffusion compile $COMPILE compile.target=three.qasm", ANYHOW, None),
    ("quantum-diffusion compile $COMPILE compile.target=crlf.qasm", ANYHOW, None),
    ("quantum-diffusion compile $COMPILE compile.target=nan.npy", ERROR, None),
    ("quantum-diffusion compile $COMPILE compile.target=obj.npy", ERROR, None),
    ("quantum-diffusion compile $COMPILE compile.target=two.npz", ERROR, None),
    ("quantum-diffusion compile $COMPILE compile.target=one.npz", ANYHOW, None),
    ("quantum-diffusion compile $COMPILE compile.target=S.NPY", ANYHOW, None),
    ("quantum-diffusion compile $COMPILE compile.target=short.npy", ERROR, None),
    ("quantum-diffusion compile $COMPILE compile.target=r.txt", ERROR, None),
    ("quantum-diffusion compile $COMPILE compile.target=nothere.qasm", ERROR, None),
    ("quantum-diffusion compile $COMPILE compile.target=fifo", ERROR, None),
    ("quantum-diffusion compile $COMPILE compile.target=.", ERROR, None),
    # the user's own presets
    (
        "quantum-diffusion train training=m.yaml training.general.dataset=srv training.general.output_path=d1 training.model.params.width=16",
        WELL,
        "d1/model.safetensors",
    ),
    ("quantum-diffusion train training=d1/training_config.yaml", ANYHOW, "d1/model.safetensors"),
    (
        "quantum-diffusion train training=d1/training_config.yaml training.general.output_path=d2",
        WELL,
        "d2/model.safetensors",
    ),
    (
        "quantum-diffusion train training=m_srv/training_config.yaml training.general.output_path=d3",
        WELL,
        "d3/model.safetensors",
    ),
    ("quantum-diffusion train --config-dir=nowhere training=m $TRAIN", ERROR, None),
    ("quantum-diffusion train training=quick_test_srv training.model.type=unet $TRAIN", ERROR, None),
    (
        "quantum-diffusion train training=quick_test_srv training.scheduler.type=ddim training.model.type=transformer training.prefix_encoder.type=none $TRAIN training.general.output_path=d4",
        WELL,
        "d4/model.safetensors",
    ),
    ("quantum-diffusion train --config-dir=. --help", WELL, None),
    # advice in messages
    ("quantum-diffusion compile $COMPILE compile.target=tgate.npy", ERROR, None),
    ("quantum-diffusion compile $COMPILE compile.target=toffoli compile.gates=[h,cx]", ERROR, None),
    ("quantum-diffusion compile $COMPILE compile.target=cx.npy compile.gates=[h,s]", ERROR, None),
    ("quantum-diffusion compile", ERROR, None),
    ("quantum-diffusion help sample", WELL, None),
    ("quantum-diffusion help nothing", ERROR, None),
    ("quantum-diffusion train $TRAIN training.general.output_path=m_srv", ERROR, None),
    (
        "quantum-diffusion train $TRAIN training.general.output_path=e1 training.general.loggers=[jsonl]",
        WELL,
        "e1/run/metrics.csv",
    ),
    ("quantum-diffusion runs runs.folder=. runs.picture=missing/x.png", ERROR, None),
    ("quantum-diffusion runs runs.folder=.", WELL, None),
    ("quantum-diffusion evaluate evaluation.dataset=unitary evaluation.model_dir=m_srv", ERROR, None),
    (
        "quantum-diffusion evaluate evaluation.dataset=srv evaluation.model_dir=m_cells evaluation.num_samples=8 evaluation.save_folder=e2",
        WELL,
        "e2/metrics.json",
    ),
    ("quantum-diffusion sample sample.model_dir=m_cells sample.srv=[2,2] sample.max_tries=16", ERROR, None),
    ("quantum-diffusion sample sample.model_dir=m_srv sample.srv=[1,1,2]", ERROR, None),
    ("quantum-diffusion train training.general.dataset=srv training.training.optimizer=AdamW", ERROR, None),
    ("quantum-diffusion trian", ERROR, None),
]


def prepare(folder: Path) -> None:
    """Create the files that the commands use."""
    for name in ("srv", "unitary", "m_srv", "m_unitary", "m_cells"):
        shutil.copytree(FIXTURES / name, folder / name)
    texts = {
        "r.txt": "hello",
        "empty.qasm": "",
        "half.qasm": 'OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[2];\nh q[0];\ncx q[0],q[5];\n',
        "three.qasm": 'OPENQASM 3.1;\ninclude "stdgates.inc";\nqubit[2] q;\nh q[0];\ncx q[0],q[1];\n',
        "crlf.qasm": '\ufeff// made\r\nOPENQASM 2.0;\r\ninclude "qelib1.inc";\r\nqreg q[2];\r\ncx q[0],q[1];\r\n',
        "m.yaml": "defaults: [quick_test_srv]\ntraining: {max_steps: 2}\n",
        "t.yaml": "training:\n\tmax_steps: 2\n",
        "d.yaml": "training: {a: 1}\ntraining: {b: 2}\n",
        "l.yaml": "- 1\n",
        "nan.yaml": "training: {learning_rate: .nan}\n",
        "self.yaml": "defaults: [self.yaml]\n",
        "big.yaml": f"num_samples: {'9' * 400}\n",
        "bomb.yaml": "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdef", "bcdefg", strict=True)),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", newline="")
    controlled_x = np.eye(4)[[0, 3, 2, 1]]
    np.save(folder / "cx.npy", controlled_x)
    np.save(folder / "nan.npy", np.full((4, 4), np.nan))
    np.save(folder / "obj.npy", np.array([1, None], dtype=object), allow_pickle=True)
    np.save(folder / "short.npy", np.eye(3))
    np.save(folder / "tgate.npy", np.diag([1, 1, 1, np.exp(1j * np.pi / 4)]))
    np.savez(folder / "two.npz", a=np.eye(2), b=np.eye(2))
    np.savez(folder / "one.npz", a=controlled_x)
    shutil.copy(folder / "cx.npy", folder / "S.NPY")
    (folder / "my dir").mkdir()
    (folder / "dangling").symlink_to("nowhere")
    os.mkfifo(folder / "fifo")


def faults(result: subprocess.CompletedProcess[str], wanted: str, left: Path | None) -> list[str]:
    """Return what is wrong with how a command ended."""
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    found = {
        "traceback": "Traceback" in result.stdout + result.stderr,
        "died": result.returncode >= 128 and result.returncode != 141,  # 141: SIGPIPE, because `head` stopped reading
        "did not end well": wanted == WELL and result.returncode != 0,
        "not one line": wanted == ERROR and (result.returncode not in (1, 2) or len(errors) != 1),
        "lost": left is not None and not left.exists(),
    }
    return [name for name, is_so in found.items() if is_so]


def main() -> int:
    """Run all commands, or those with the given numbers."""
    chosen = set(map(int, sys.argv[1:])) or set(range(len(ATTACKS)))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    bad = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(folder)
        for number in sorted(chosen):
            command, wanted, left = ATTACKS[number]
            started = time.perf_counter()
            result = subprocess.run(
                ["bash", "-o", "pipefail", "-c", command],
                cwd=folder,
                env={**os.environ, **SETTINGS, "PATH": path, "OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=600,
            )
            found = faults(result, wanted, None if left is None else folder / left)
            bad += bool(found)
            said = (result.stderr.strip().splitlines() or ["-"])[-1]
            print(f"{number:3d} {result.returncode:3d} {time.perf_counter() - started:5.1f} s  {command}", flush=True)
            print(f"          {' '.join(found).upper() or 'fine'}: {said[:200]}", flush=True)
    print(f"{len(chosen) - bad} of {len(chosen)} attacks ended as they should")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
