"""The method in one file: a network learns to restore hidden gates, and then writes circuits on request.

It needs only numpy and torch, not quantum_diffusion. Run it with `python docs/toy.py`; it takes a minute on a CPU.
"""

import argparse
import itertools
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

# 1. Circuits. Three qubits start in |000>; the gates are h and cx. A circuit is a row of numbers: 0 is "no gate", the
# others number the instructions of this table.
QUBITS, STEPS = 3, 8
H = np.array([[1, 1], [1, -1]]) / np.sqrt(2)
INSTRUCTIONS = [("h", (q,)) for q in range(QUBITS)] + [
    ("cx", pair) for pair in itertools.permutations(range(QUBITS), 2)
]
VOCABULARY = len(INSTRUCTIONS) + 1


def matrix(gate: str, qubits: tuple[int, ...]) -> np.ndarray:
    """Return the matrix of an instruction on all qubits, [8, 8]; qubit q is bit q of a basis index."""
    result = np.zeros((2**QUBITS, 2**QUBITS))
    for column in range(2**QUBITS):
        if gate == "cx":
            control, target = qubits
            result[column ^ ((column >> control & 1) << target), column] = 1
        else:
            bit = column >> qubits[0] & 1
            for row_bit in (0, 1):
                result[column & ~(1 << qubits[0]) | row_bit << qubits[0], column] = H[row_bit, bit]
    return result


GATES = torch.tensor(np.stack([np.eye(2**QUBITS), *(matrix(*i) for i in INSTRUCTIONS)]), dtype=torch.float32)


# 2. Labels. A qubit is entangled with the others if its reduced state is mixed, that is, its purity is below 1. The
# Schmidt rank vector has 2 for such qubits and 1 for the others. Here it is stored as bits; no state has exactly one.
def states_before(ids: Tensor) -> Tensor:
    """ids [B, T] => the state before each step and after the last one, [B, T + 1, 8]."""
    state = torch.zeros(len(ids), 2**QUBITS)
    state[:, 0] = 1
    states = [state]
    for step in ids.T:
        states.append(torch.einsum("bij,bj->bi", GATES[step], states[-1]))
    return torch.stack(states, dim=1)


def entangled(states: Tensor) -> Tensor:
    """States [..., 8] => which qubits are entangled, bool [..., 3]."""
    cube = states.view(*states.shape[:-1], *[2] * QUBITS)  # the last axis is qubit 0
    purities = []
    for qubit in range(QUBITS):
        halves = cube.movedim(-1 - qubit, -1).flatten(-QUBITS, -2)  # [..., 4, 2]
        reduced = halves.mT @ halves  # [..., 2, 2]
        purities.append((reduced**2).sum((-1, -2)))
    return torch.stack(purities, dim=-1) < 1 - 1e-3


# 3. Data. Random circuits, with every label equally frequent. "No gate" fills the end.
def draw(count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return ids [N, T] and labels bool [N, 3], balanced over the labels."""
    ids = rng.integers(1, VOCABULARY, (8 * count, STEPS))
    ids[np.arange(STEPS) >= rng.integers(2, STEPS + 1, (len(ids), 1))] = 0
    circuits = torch.from_numpy(np.unique(ids, axis=0))
    labels = entangled(states_before(circuits)[:, -1])
    codes = (labels * torch.tensor([1, 2, 4])).sum(1)
    order = torch.from_numpy(rng.permutation(len(codes)))
    rows = [order[codes[order] == code][: count // 5] for code in codes.unique()]
    chosen = torch.cat(rows)
    return circuits[chosen], labels[chosen]


# 4. The network. Absorbing diffusion hides gates and learns p(gate | visible gates, request). If gates are revealed
# from left to right, the visible gates matter only through the state they prepare. So each step sees that state, its
# entangled qubits, the position of the step and the request; no attention is needed.
class Policy(nn.Module):
    """Predicts the gate of a step from the state that the steps before it prepare."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.place = nn.Embedding(STEPS, width)
        self.state = nn.Linear(2**QUBITS + QUBITS, width)
        self.label = nn.Linear(QUBITS + 1, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
            for _ in range(3)
        )
        self.predict = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, VOCABULARY))

    def forward(self, states: Tensor, place: Tensor, label: Tensor, is_asked: Tensor) -> Tensor:
        """States [B, t, 8], place [t], label [B, 3], is_asked [B] => logits [B, t, V]."""
        shown = torch.cat([states * 2 ** (QUBITS / 2), entangled(states).float()], dim=-1)
        asked = torch.cat([label.float() * is_asked[:, None], is_asked[:, None]], dim=1)
        x = self.state(shown) + self.place(place) + self.label(asked)[:, None]
        for block in self.blocks:
            x = x + block(x)
        return self.predict(x)


# 5. Training. One pass scores every noise level of the order: the loss is the exact bound, the sum over steps of
# -log p(gate | gates before). One request in ten is dropped, so the network also learns to write without a request.
def train(ids: Tensor, labels: Tensor, steps: int, batch: int = 256) -> Policy:
    """Return a network trained for the given number of steps."""
    policy = Policy()
    optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for step in range(steps):
        rows = torch.randint(len(ids), (batch,))
        states = states_before(ids[rows])[:, :-1]
        is_asked = (torch.rand(batch) > 0.1).float()
        logits = policy(states, torch.arange(STEPS), labels[rows], is_asked)
        loss = F.cross_entropy(logits.flatten(0, 1), ids[rows].flatten(), reduction="sum") / batch
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % max(1, steps // 10) == 0:
            print(f"step {step:5d}  loss {loss.item():.3f} nats a circuit")
    return policy


# 6. Sampling. Gates are revealed from left to right. Guidance amplifies the request: u + g (c - u) of the log-
# probabilities.
@torch.no_grad()
def sample(policy: Policy, labels: Tensor, guidance: float = 2.0) -> Tensor:
    """Labels bool [N, 3] => circuits [N, T]."""
    ids = torch.zeros(len(labels), STEPS, dtype=torch.long)
    for step in range(STEPS):
        state, place = states_before(ids[:, :step])[:, -1:], torch.tensor([step])
        asked, free = (policy(state, place, labels, torch.full((len(labels),), a))[:, 0] for a in (1.0, 0.0))
        free, asked = free.log_softmax(-1), asked.log_softmax(-1)
        ids[:, step] = torch.multinomial((free + guidance * (asked - free)).softmax(-1), 1)[:, 0]
    return ids


def main() -> None:
    """Generate data, train, sample, and verify every circuit by simulation."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--steps", type=int, default=1200, help="training steps")
    options.add_argument("--circuits", type=int, default=50_000, help="circuits to train on, at most")
    given = options.parse_args()
    torch.manual_seed(0)
    started = time.perf_counter()
    ids, labels = draw(given.circuits, np.random.default_rng(0))
    print(f"{len(ids):,} circuits, {len(labels.unique(dim=0))} Schmidt rank vectors")
    policy = train(ids, labels, given.steps)

    wanted = labels.unique(dim=0).repeat(400, 1)
    written = sample(policy, wanted)
    exact = (entangled(states_before(written)[:, -1]) == wanted).all(dim=1) & (written > 0).any(dim=1)
    shuffled = (entangled(states_before(written)[:, -1]) == wanted[torch.randperm(len(wanted))]).all(dim=1)
    for vector in labels.unique(dim=0):
        rows = (wanted == vector).all(dim=1)
        print(f"SRV {(vector + 1).tolist()}: {exact[rows].float().mean():.1%} exact")
    print(f"in all: {exact.float().mean():.1%} exact of {len(wanted):,} samples, each simulated", end="; ")
    print(f"against shuffled requests {shuffled.float().mean():.1%}; {time.perf_counter() - started:.0f} s")
    example = written[exact.nonzero()[-1, 0]]
    print("a circuit:", ", ".join(f"{INSTRUCTIONS[i - 1][0]} {INSTRUCTIONS[i - 1][1]}" for i in example.tolist() if i))


if __name__ == "__main__":
    main()
