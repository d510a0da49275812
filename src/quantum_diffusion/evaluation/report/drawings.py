"""A circuit as inline SVG: wires from left to right, gates in layers, in the colours of the page.

It draws gates from their controls and targets alone, so gates added to the table need no change here.
"""

from __future__ import annotations

from quantum_diffusion.circuits.angles import angle_in_words
from quantum_diffusion.circuits.circuit import Circuit, Instruction
from quantum_diffusion.circuits.gates import GATES
from quantum_diffusion.errors import counted
from quantum_diffusion.evaluation.report.markup import Markup, element, scrolling

_LAYER, _WIRE, _LEFT, _BOX = 38.0, 36.0, 34.0, 26.0
_DAGGER = "dg"


def drawing(circuit: Circuit, title: str) -> Markup:
    """Return the drawing of a circuit, below its title."""
    layers = layered(circuit)
    width, height = _LEFT + _LAYER * (max(layers, default=0) + 1) + 8, _WIRE * circuit.num_qubits
    wires = [
        (
            element("text", f"q{qubit}", x=2, y=_y(qubit) + 4, class_="wire-name"),
            element("line", x1=_LEFT - 8, y1=_y(qubit), x2=width, y2=_y(qubit), class_="wire"),
        )
        for qubit in range(circuit.num_qubits)
    ]
    gates = [
        _gate(instruction, _LEFT + _LAYER * (layer + 0.5))
        for instruction, layer in zip(circuit.instructions, layers, strict=True)
    ]
    svg = element(
        "svg",
        [part for pair in wires for part in pair],
        gates,
        width=width,
        height=height,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_label=f"circuit: {in_words(circuit)}",
    )
    return element("figure", element("figcaption", title), scrolling(svg, f"drawing: {title}"), class_="circuit")


def in_words(circuit: Circuit) -> str:
    """Describe the gates of a circuit with their qubits, for screen readers.

    Example:
        >>> in_words(Circuit(2, (Instruction("h", (), (0,)), Instruction("cx", (0,), (1,)))))
        '2 qubits, h on q0, cx on q0 q1'
    """
    gates = [f"{named(one)} on {' '.join(f'q{qubit}' for qubit in one.qubits)}" for one in circuit.instructions]
    return ", ".join([counted(circuit.num_qubits, "qubit"), *(gates or ["no gates"])])


def named(instruction: Instruction) -> str:
    """Return a gate's name with its angles, if it has any: rz(π/2)."""
    angles = ", ".join(map(angle_in_words, instruction.angles))
    return f"{instruction.gate}({angles})" if angles else instruction.gate


def layered(circuit: Circuit) -> list[int]:
    """Return the layer of each gate: the first one free on all wires from its lowest to its highest qubit."""
    free = [0] * circuit.num_qubits
    layers = []
    for instruction in circuit.instructions:
        span = range(min(instruction.qubits), max(instruction.qubits) + 1)
        layer = max(free[qubit] for qubit in span)
        layers.append(layer)
        for qubit in span:
            free[qubit] = layer + 1
    return layers


def _y(qubit: int) -> float:
    return _WIRE * (qubit + 0.5)


def _gate(instruction: Instruction, x: float) -> Markup:
    """Draw a gate: controls as dots, targets as ⊕, ×, a dot or a box with the gate's name."""
    name = instruction.gate[GATES[instruction.gate].num_controls :]  # ccx controls x
    qubits = instruction.qubits
    parts = []
    if len(qubits) > 1:
        parts.append(element("line", x1=x, y1=_y(min(qubits)), x2=x, y2=_y(max(qubits)), class_="link"))
    parts += [element("circle", cx=x, cy=_y(qubit), r=4.5, class_="dot") for qubit in instruction.controls]
    for qubit in instruction.targets:
        parts.append(_target(name, x, _y(qubit), bool(instruction.controls), len(instruction.angles) == 1))
        if len(instruction.angles) == 1:  # more do not fit; the title has them
            angle = angle_in_words(*instruction.angles)
            parts.append(element("text", angle, x=x, y=_y(qubit) + _BOX / 2 - 2, class_="gate-angle"))
    return element("g", element("title", named(instruction)), parts)


def _target(name: str, x: float, y: float, is_controlled: bool, has_angle: bool) -> Markup:
    if name == "swap":
        return element("path", d=f"M{x - 6:g} {y - 6:g}l12 12m0-12l-12 12", class_="link")
    if is_controlled and name == "x":
        cross = element("path", d=f"M{x - 10:g} {y:g}h20m-10-10v20", class_="link")
        return element("g", element("circle", cx=x, cy=y, r=10, class_="ring"), cross)
    if is_controlled and name == "z":
        return element("circle", cx=x, cy=y, r=4.5, class_="dot")
    letters = name.removesuffix(_DAGGER).upper() + ("†" if name.endswith(_DAGGER) else "")
    half = _BOX / 2
    box = element("rect", x=x - half, y=y - half, width=_BOX, height=_BOX, rx=4, class_="box")
    height = y + (0 if has_angle else 5)
    return element("g", box, element("text", letters, x=x, y=height, class_="gate-name"))
