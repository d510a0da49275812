"""Write the notebooks of this folder. Run: python docs/notebooks/make.py [--execute]

This file holds their source: a line `# %%` begins a code cell, `# %% [markdown]` a text cell. `--execute` runs them and
needs nbclient and ipykernel; without it they have no outputs.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent

NOTEBOOKS = {
    "first_circuits": """
# %% [markdown]
# First circuits

Sample circuits with the models that come with the package. Every returned circuit is verified by simulation.
# %%
import quantum_diffusion as qd

found = qd.sample([2, 1, 2], num=3, seed=0)
found
# %% [markdown]
In the vector, 2 marks qubits that are entangled and 1 those that are not. A circuit is plain data:
# %%
circuit = found[0]
print(circuit.gate_counts)
print(circuit.to_qasm2())
# %% [markdown]
Check it with Qiskit: qubit 1 is in a pure state, the others are not.
# %%
from qiskit.quantum_info import Statevector, partial_trace

state = Statevector(circuit.to_qiskit())
purities = [partial_trace(state, [other for other in range(3) if other != qubit]).purity().real for qubit in range(3)]
[round(float(purity), 3) for purity in purities]
# %% [markdown]
Ask for more qubits, or for exactly 8 gates:
# %%
qd.sample([2, 2, 2, 2, 1], num=1, max_gates=8, edit=qd.Edit(min_gates=8), seed=0)
# %% [markdown]
Convert results to a pandas table:
# %%
many = qd.sample([2, 2, 2], num=20, seed=0)
many.to_pandas()[["gates", "two_qubit_gates", "depth"]].describe().loc[["mean", "min", "max"]]
""",
    "train_your_own": """
# %% [markdown]
# Train your own model

Generate data, train, evaluate and sample. The sizes are small so that this takes half a minute, and the model is only
better than chance. `make demo` does the same with 125,000 circuits; 99.7 % of its samples are exact.
# %%
import quantum_diffusion as qd

dataset = qd.generate("quick_test_srv", output_path="datasets/notebook", num_samples=6000, n_jobs=1)
dataset
# %% [markdown]
Every circuit has a prompt with its simulated Schmidt rank vector.
# %%
dataset.prompt_counts
# %%
model = qd.train(
    "datasets/notebook",
    "quick_test_srv",
    output_path="models/notebook",
    settings={"training.max_steps": 150, "training.balance_prompts": True},
)
model
# %% [markdown]
Compare the accuracy with two baselines: the same circuits with shuffled prompts, and random circuits.
# %%
metrics = qd.evaluate("models/notebook", "datasets/notebook", "quick_test_srv", settings={"num_samples": 400}).metrics
low, high = metrics.srv_accuracy_interval
print(f"exact {metrics.srv_accuracy:.1%} (95 %: {low:.1%} to {high:.1%})")
print(f"shuffled prompts {metrics.baseline_shuffled_accuracy:.1%}")
print(f"random circuits {metrics.baseline_random_accuracy:.1%}")
# %%
model.sample([1, 2, 2], num=2, seed=0)
""",
    "compile_for_your_device": """
# %% [markdown]
# Compile for your device

Give a unitary and the gates and connections of a device, and get circuits that equal the unitary up to a global phase.
# %%
import quantum_diffusion as qd

qd.compile("fredkin", gates=["h", "cx", "ccx"], seed=0)
# %% [markdown]
On a line, qubits 0 and 2 are not connected. Search for one second for the fewest two-qubit gates.
# %%
on_a_line = qd.compile("ghz:3", coupling=[(0, 1), (1, 2)], objective="two_qubit_gates", max_seconds=1, seed=0)
on_a_line
# %% [markdown]
Compile your own matrix. Qubit 0 is the lowest bit of the index.
# %%
import numpy as np

reversal = np.eye(8)[::-1]  # every bit flipped
qd.compile(reversal, seed=0)[0]
# %% [markdown]
Impossible requests are refused before the search: these gates are real-valued, but `qft` is complex. Without `gates` a
model of gates with angles would answer.
# %%
try:
    qd.compile("qft:3", gates=["h", "cx", "ccx"])
except qd.QuantumDiffusionError as problem:
    print(problem)
# %% [markdown]
Continue with the result in Qiskit.
# %%
from qiskit.quantum_info import Operator

found = qd.compile("toffoli", gates=["h", "ccx"], seed=0)[0].to_qiskit()
print(found)
Operator(found).is_unitary()
""",
    "gates_with_angles": """
# %% [markdown]
# Gates with angles

Find the angles of a circuit of your own, then let a model choose the gates, too.
# %%
import quantum_diffusion as qd

ansatz = qd.Circuit.from_qasm(
    'include "qelib1.inc"; qreg q[3];'
    "h q[2]; cp(1) q[1],q[2]; cp(1) q[0],q[2]; h q[1]; cp(1) q[0],q[1]; h q[0]; swap q[0],q[2];"
)
qd.refine(ansatz, "qft:3")
# %% [markdown]
The gates stay; the angles are moved until the circuit implements the quantum Fourier transform. It is called exact if
its infidelity, simulated in 64 bits from the gates as they are written, is below 1e-10.

The same works for the evolution of a Hamiltonian. This circuit is too short for an exact result, so an approximate one
is asked for:
# %%
trotter = qd.Circuit.from_qasm(
    'include "qelib1.inc"; qreg q[2];'
    "rx(0) q[0]; rx(0) q[1]; cx q[0],q[1]; rz(0) q[1]; cx q[0],q[1]; rx(0) q[0]; rx(0) q[1];"
)
qd.refine(trotter, "ising:2:J0.4:h0.2:t0.25", tolerance=1e-4)
# %% [markdown]
`pauli:0.5*XX-0.3*ZZ:t0.25` is the evolution of any sum of Pauli operators. With `state=` instead of a target, a circuit
prepares a state:
# %%
pair = qd.Circuit.from_qasm('include "qelib1.inc"; qreg q[2]; ry(1) q[0]; cx q[0],q[1]; ry(1) q[0]; ry(1) q[1];')
qd.refine(pair, state="ground:-1*ZZ-0.5*XI-0.5*IX")
# %% [markdown]
## Let a model choose the gates
The models that come with the package know angles, too. They are used if you name gates with angles, or where gates
without angles cannot make the target, such as the amplitudes 1/sqrt(3) of a W state.
# %%
qd.prepare("w:3", seed=0)
# %% [markdown]
With `objective="energy"` any state counts whose energy is the lowest, of structures and angles alike.
# %%
qd.prepare("ground:-1*ZZI-1*IZZ-0.7*XII-0.7*IXI-0.7*IIX", objective="energy", gates=["ry", "cx"], seed=0)
# %% [markdown]
## A model of your own
A model of gates with angles is trained as any other. The sizes here are tiny; the presets `parameterised_2q` to
`parameterised_4q` have useful ones.
# %%
qd.generate(
    "parameterised_2q",
    output_path="datasets/two_qubits",
    gate_set=["h", "cx", "rz", "ry"],
    max_gates=6,
    num_samples=3000,
    n_jobs=1,
)
model = qd.train(
    "datasets/two_qubits",
    "parameterised_2q",
    output_path="models/two_qubits",
    settings={"training.num_epochs": 3, "training.batch_size": 64, "model.params.width": 64, "model.params.depth": 2},
)
model
# %%
model.compile("random:2:3", gates=["cx", "rz", "ry"], num=2, seed=1)
# %% [markdown]
The model wrote the gates of each circuit; its angles were refined, superfluous gates were deleted, and it was
verified.
""",
    "coming_from_genqc": """
# %% [markdown]
# Coming from genQC

Open a genQC model and data set, fine-tune the model with settings written for genQC, evaluate it, and write it back. It
needs the extra `clip`. genQC's published weights need a network, so the next two cells make stand-ins: a random CLIP, a
small data set and an untrained network. With folders of your own, skip these cells.
# %%
import json
from pathlib import Path

from transformers import CLIPTextConfig, CLIPTextModel

letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 1}
ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": 0}
CLIPTextModel(CLIPTextConfig(vocab_size=len(words), **sizes, **ends)).save_pretrained("clip")
Path("clip/vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
Path("clip/merges.txt").write_text("#version: 0.2\\n")
# %%
import quantum_diffusion as qd
from quantum_diffusion.interop.genqc_export import export_dataset
from quantum_diffusion.interop.genqc_pipeline_export import write_pipeline

unet = {"model_features": [32, 64], "num_heads": [2, 4], "num_res_blocks": [1, 1], "transformer_depths": [1, 1]}
settings = {
    "model.type": "QC_Cond_UNet",
    "model.params": {**unet, "clr_dim": 4, "t_emb_size": 16, "cond_emb_size": 64},
    "text_encoder.type": "CachedFrozenOpenCLIPEmbedder",
    "text_encoder.params.weights": "clip",
    "scheduler.type": "DDIMScheduler",
    "scheduler.params.prediction_type": "epsilon",
    "training.optimizer": "torch.optim.Adam",
    "training.loss": "MSELoss",
    "training.lr": 1e-3,
    "training.enable_guidance_train": True,
    "training.padding_mode": "max",
}
small = qd.generate("quick_test_srv", output_path="datasets/small", num_samples=2000, n_jobs=1)
export_dataset(small, "genqc_data")
untrained = qd.train("genqc_data", output_path="models/untrained", settings={**settings, "training.max_steps": 1})
write_pipeline(untrained.pipeline, "genqc_model")
sorted(path.name for path in Path("genqc_model").iterdir())
# %% [markdown]
The settings above have genQC's names. A folder that genQC saved opens by itself.
# %%
model = qd.load("genqc_model")
model
# %% [markdown]
Fine-tune it on genQC's data set. The network has to be the same; everything else may change. The 30 steps here show how
it is done; they are far too few to learn anything.
# %%
tuned = qd.train(
    "genqc_data",
    output_path="models/tuned",
    settings={**settings, "general.init_from_pipeline_dir": "genqc_model", "training.max_steps": 30},
)
# %%
metrics = qd.evaluate(
    "models/tuned", "genqc_data", settings={"num_samples": 64, "model_params": {"g": 7.5, "sample_steps": 10}}
).metrics
print(f"exact {metrics.srv_accuracy:.1%} after 30 steps, random circuits {metrics.baseline_random_accuracy:.1%}")
# %% [markdown]
Write it back: the folder opens with `DiffusionPipeline.from_config_file` of genQC.
# %%
write_pipeline(tuned.pipeline, "tuned_genqc")
qd.load("tuned_genqc")
""",
}


def cells_of(text: str) -> list[dict[str, object]]:
    """Return the cells of a notebook written in the format above."""
    cells: list[dict[str, object]] = []
    for number, part in enumerate(text.strip().split("# %%")[1:]):
        is_text = part.startswith(" [markdown]")
        source = part.removeprefix(" [markdown]").strip()
        cell: dict[str, object] = {
            "cell_type": "markdown" if is_text else "code",
            "id": f"cell-{number}",
            "metadata": {},
            "source": source.splitlines(keepends=True),
        }
        cells.append(cell if is_text else cell | {"execution_count": None, "outputs": []})
    return cells


def notebook(text: str) -> dict[str, object]:
    """Return a notebook without outputs, in Jupyter's format 4.5."""
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": cells_of(text),
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def execute(content: dict[str, object]) -> dict[str, object]:
    """Run a notebook in an empty folder and return it with its outputs."""
    import nbformat
    from nbclient import NotebookClient

    with tempfile.TemporaryDirectory() as folder:
        document = nbformat.reads(json.dumps(content), as_version=4)
        NotebookClient(document, timeout=300, resources={"metadata": {"path": folder}}).execute()
    for cell in document.cells:
        cell.metadata = {}  # when it ran
        if "outputs" in cell:  # warnings and progress of libraries, with paths of this machine
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.get("outputs", []):
            if "text/html" in output.get("data", {}):
                output["data"].pop("image/png", None)  # a large twin
    document.metadata = content["metadata"]
    return json.loads(nbformat.writes(document))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name, text in NOTEBOOKS.items():
        content = notebook(text)
        content = execute(content) if "--execute" in sys.argv[1:] else content
        path = FOLDER / f"{name}.ipynb"
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(path.name)
