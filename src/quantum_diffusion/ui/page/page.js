// The page of `quantum-diffusion ui`. Text becomes text nodes, never markup; everything is loaded from this server.
"use strict";

const KINDS = {
  sample: { title: "Entanglement", noun: "" },
  compile: { title: "Unitary", noun: "Unitary", files: "a .npy matrix or a .qasm circuit, at most 4 MiB" },
  prepare: { title: "State", noun: "State", files: "a .npy vector or a .qasm circuit, at most 4 MiB" },
};
const MOST_FILE_BYTES = 4 * 2 ** 20;
const PROGRAM = 'OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[3];\nccx q[0],q[1],q[2];\n';

const byId = (id) => document.getElementById(id);
const state = { models: [], maxSeconds: 20, kind: null, entangled: [] };

/** Create an element with properties (names with a dash become attributes) and children; strings become text nodes. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

/** The same for SVG, where everything is an attribute. */
function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// ------------------------------------------------------------------------------------------------ the server

async function ask(path, body) {
  let response;
  try {
    response = await fetch(path, body === undefined ? {} : {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
  } catch {
    throw new Error("the server does not answer: is quantum-diffusion ui still running?");
  }
  if (response.ok) return response;
  const answer = await response.json().catch(() => ({}));
  throw new Error(answer.error || `the server answered ${response.status}`);
}

const askJson = async (path, body) => (await ask(path, body)).json();

function save(blob, name) {
  const address = URL.createObjectURL(blob);
  const link = make("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

// ---------------------------------------------------------------------------------------------------- the form

const model = () => state.models.find((one) => one.name === byId("model").value);
const chosenWay = () => document.querySelector("input[name=way]:checked").value;

function showKinds() {
  const kinds = Object.keys(KINDS).filter((kind) => state.models.some((one) => one.command === kind));
  byId("kinds").replaceChildren(...kinds.map((kind) => {
    const input = make("input", { type: "radio", name: "kind", value: kind });
    input.addEventListener("change", () => showKind(kind));
    return make("label", {}, input, make("span", {}, KINDS[kind].title));
  }));
}

function showKind(kind) {
  state.kind = kind;
  for (const input of document.querySelectorAll("input[name=kind]")) input.checked = input.value === kind;
  const fitting = state.models.filter((one) => one.command === kind);
  byId("model").replaceChildren(...fitting.map((one) => make("option", { value: one.name }, one.name)));
  byId("for-srv").hidden = byId("for-guidance").hidden = kind !== "sample";
  byId("for-target").hidden = kind === "sample";
  byId("target-legend").textContent = KINDS[kind].noun;
  byId("file-hint").textContent = KINDS[kind].files || "";
  showModel();
}

function showModel() {
  const one = model();
  byId("model-answers").textContent = one.answers;
  byId("most").max = one.max_gates;
  if (state.kind === "sample") {
    byId("size").replaceChildren(...one.sizes.map((size) => make("option", { value: size }, String(size))));
    const least = one.sizes[0];
    showQubits(Array.from({ length: least }, (_, qubit) => (least < 2 || (least > 2 && qubit === 0) ? 1 : 2)));
    return;
  }
  byId("gates").replaceChildren(...one.gates.map((gate) => make("label", {},
    make("input", { type: "checkbox", name: "gate", value: gate, checked: true }), make("span", {}, gate))));
  byId("examples").replaceChildren(...one.examples.map((name) => {
    const button = make("button", { type: "button" }, name);
    button.addEventListener("click", () => { byId("name").value = name; });
    return button;
  }));
  byId("name").value = one.examples[0] || "";
}

function showQubits(srv) {
  state.entangled = srv.map((rank) => rank === 2);
  byId("size").value = srv.length;
  byId("qubits").replaceChildren(...srv.map((_, qubit) => {
    const button = make("button", { type: "button", "aria-pressed": state.entangled[qubit] }, `q${qubit}`);
    button.addEventListener("click", () => {
      state.entangled[qubit] = !state.entangled[qubit];
      button.setAttribute("aria-pressed", state.entangled[qubit]);
      tellSrv();
    });
    return button;
  }));
  tellSrv();
}

const srv = () => state.entangled.map((entangled) => (entangled ? 2 : 1));

function tellSrv() {
  const alone = state.entangled.filter(Boolean).length === 1;
  byId("srv-hint").textContent = `Schmidt rank vector [${srv().join(", ")}]`
    + (alone ? ": choose a second qubit, a single one cannot be entangled" : "");
}

function showWay(way) {
  for (const input of document.querySelectorAll("input[name=way]")) input.checked = input.value === way;
  for (const other of ["name", "qasm", "file"]) byId(`way-${other}`).hidden = other !== way;
}

/** Return the number in a field, null if it is empty; throws if it is not a number. */
function numberIn(id) {
  const field = byId(id);
  if (field.validity.badInput) throw new Error(`${field.labels[0].textContent} is not a number`);
  return field.value.trim() === "" ? null : Number(field.value);
}

async function readTarget() {
  const way = chosenWay();
  if (way === "qasm") return { qasm: byId("qasm").value || " " };
  if (way === "name") {
    const name = byId("name").value.trim();
    if (!name) throw new Error(`give the name of a ${KINDS[state.kind].noun.toLowerCase()}, e.g. ${model().examples[0]}`);
    return { name };
  }
  const file = byId("file").files[0];
  if (!file) throw new Error(`choose a file: ${KINDS[state.kind].files}`);
  if (file.size > MOST_FILE_BYTES) throw new Error(`'${file.name}' is larger than 4 MiB: choose a smaller file`);
  const bytes = new Uint8Array(await file.arrayBuffer());
  let text = "";
  for (let start = 0; start < bytes.length; start += 8192) {
    text += String.fromCharCode(...bytes.subarray(start, start + 8192));
  }
  return { file: file.name, content: btoa(text) };
}

async function readRequest() {
  const request = {
    model: byId("model").value,
    coupling: byId("coupling").value,
    num_circuits: numberIn("number") ?? 4,
    max_seconds: numberIn("seconds"),
    max_gates: numberIn("most"),
    seed: numberIn("seed"),
    objective: byId("objective").value,
  };
  if (state.kind === "sample") return { ...request, srv: srv(), guidance_scale: numberIn("guidance") };
  const boxes = [...document.querySelectorAll("input[name=gate]")];
  const gates = boxes.filter((box) => box.checked).map((box) => box.value);
  if (!gates.length) throw new Error("allow at least one gate");
  return { ...request, target: await readTarget(), gates: gates.length === boxes.length ? null : gates };
}

// ------------------------------------------------------------------------------------------------- the search

let ticking = null;

function setBusy(busy) {
  byId("find").disabled = busy;
  byId("stop").hidden = !busy;
  byId("stop").disabled = false;
  byId("status").classList.toggle("busy", busy);
  byId("results").setAttribute("aria-busy", busy);
  clearInterval(ticking);
  if (!busy) return;
  const started = Date.now();
  const most = numberIn("seconds") ?? state.maxSeconds;
  const tell = () => {
    const seconds = Math.floor((Date.now() - started) / 1000);
    byId("status").textContent = seconds < 2 ? "Searching …" : `Searching … ${seconds} of at most ${most} s`;
  };
  tell();
  ticking = setInterval(tell, 1000);
}

async function find() {
  if (byId("find").disabled) return;
  byId("error").textContent = "";
  try {
    const request = await readRequest();
    setBusy(true);
    byId("script").hidden = true;
    byId("circuits").replaceChildren();
    const answer = await askJson("/api/find", request);
    setBusy(false);
    remember(request);
    showAnswer(answer, { ...request, seed: answer.seed });
  } catch (problem) {
    setBusy(false);
    byId("status").textContent = "";
    byId("error").textContent = problem.message;
    byId("error").scrollIntoView({ block: "nearest" });
  }
}

function showAnswer(answer, request) {
  byId("status").textContent = [answer.summary, answer.problem].filter(Boolean).join("; ");
  byId("python").textContent = answer.python;
  byId("script").hidden = false;
  const shown = answer.circuits.map((circuit, row) => card(circuit, `Circuit ${row + 1}`, request));
  if (answer.nearest) shown.push(card(answer.nearest, "The nearest circuit", request));
  byId("circuits").replaceChildren(...shown);
  if (window.matchMedia("(max-width: 55.99rem)").matches) byId("results").scrollIntoView();
}

/** Store the request in the URL, except programs and files, so that it can be bookmarked. */
function remember(request) {
  const words = new URLSearchParams({ model: request.model });
  if (request.srv) words.set("srv", request.srv.join(","));
  if (request.target?.name) words.set("target", request.target.name);
  if (request.gates) words.set("gates", request.gates.join(","));
  if (request.coupling !== "all") words.set("coupling", request.coupling);
  words.set("number", request.num_circuits);
  const others = { seconds: "max_seconds", most: "max_gates", seed: "seed", guidance: "guidance_scale" };
  for (const [word, key] of Object.entries(others)) if (request[key] != null) words.set(word, request[key]);
  if (request.objective !== "gates") words.set("objective", request.objective);
  history.replaceState(null, "", `?${words}`);
}

/** Fill the form from the URL; run=1 starts the search, watch=1 also plays its first circuit. */
function recall() {
  const words = new URLSearchParams(location.search);
  const wanted = state.models.find((one) => one.name === words.get("model"));
  showKind((wanted || state.models[0]).command);
  if (wanted) {
    byId("model").value = wanted.name;
    showModel();
  }
  const ranks = (words.get("srv") || "").split(",").map(Number);
  if (state.kind === "sample" && model().sizes.includes(ranks.length)) showQubits(ranks);
  if (words.has("target")) byId("name").value = words.get("target");
  if (words.has("qasm")) {
    byId("qasm").value = words.get("qasm");
    showWay("qasm");
  }
  if (words.has("gates")) {
    const gates = words.get("gates").split(",");
    for (const box of document.querySelectorAll("input[name=gate]")) box.checked = gates.includes(box.value);
  }
  for (const id of ["coupling", "number", "seconds", "guidance", "most", "seed", "objective"]) {
    if (words.has(id)) byId(id).value = words.get(id);
  }
  return words;
}

// ------------------------------------------------------------------------------------------------- a circuit

function card(circuit, title, request) {
  const isNear = circuit.exact === false;
  const infidelity = "infidelity" in circuit ? [["infidelity", shortly(circuit.infidelity)]] : [];
  const label = circuit.srv ? [["Schmidt rank vector", `[${circuit.srv.join(", ")}]`]] : infidelity;
  const facts = [...label, ["gates", circuit.num_gates], ["two-qubit", circuit.two_qubit_gates], ["depth", circuit.depth]];
  const svg = drawing(circuit);
  const buttons = make("div", { className: "buttons" });
  const trouble = make("p", { className: "error", role: "alert" });
  const watched = make("div", { className: "watch", hidden: true });
  const add = (text, act) => {
    const button = make("button", { type: "button", className: "quiet" }, text);
    button.addEventListener("click", async () => {
      trouble.textContent = "";
      try {
        await act(button);
      } catch (problem) {
        trouble.textContent = problem.message;
      }
    });
    buttons.append(button);
    return button;
  };
  const watch = add("Replay gate by gate", async (button) => {
    if (watched.hidden && !watched.children.length) {
      const { seed, ...others } = request;
      const answer = await askJson("/api/steps", { find: { ...others, seed }, qasm: circuit.qasm });
      watched.append(...player(answer, svg, request));
    }
    watched.hidden = !watched.hidden;
    if (watched.hidden) svg.querySelectorAll("g").forEach((gate) => gate.setAttribute("class", ""));
    else watched.querySelector("input").dispatchEvent(new Event("input"));
    const isCalm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (!watched.hidden && !isCalm) watched.querySelector("button").click();
    button.setAttribute("aria-expanded", !watched.hidden);
  });
  watch.setAttribute("aria-expanded", "false");
  watch.dataset.watch = "";
  add("OpenQASM", () => save(new Blob([circuit.qasm], { type: "text/plain" }), "circuit.qasm"));
  add("PNG", async () => save(await (await ask("/api/picture", { qasm: circuit.qasm })).blob(), "circuit.png"));
  return make("article", {},
    make("h2", {}, title, isNear
      ? make("span", { className: "near" }, "not exact")
      : make("span", { className: "verified" }, "✓ verified by simulation")),
    make("dl", { className: "facts" }, ...facts.map(([name, value]) =>
      make("div", {}, make("dt", { title: MEANINGS[name] || "" }, name), make("dd", {}, String(value))))),
    make("div", { className: "drawing", tabIndex: 0, role: "group", "aria-label": "drawing of the circuit" }, svg),
    buttons, trouble, watched);
}

const MEANINGS = { "two-qubit": "gates on two or more qubits; a gate on k qubits counts k − 1 times", depth: "layers of gates that can run in parallel" };
const shortly = (number) => (number < 1e-12 ? "0" : number.toPrecision(2));

const LAYER = 40, WIRE = 38, LEFT = 36, BOX = 27;

/** Draw a circuit: wires from left to right, and one group per gate, in order. */
function drawing(circuit) {
  const layers = Math.max(0, ...circuit.gates.map((gate) => gate.layer + 1));
  const width = LEFT + LAYER * layers + 12;
  const height = WIRE * circuit.num_qubits;
  const y = (qubit) => WIRE * (qubit + 0.5);
  const wires = Array.from({ length: circuit.num_qubits }, (_, qubit) => [
    draw("text", { x: 2, y: y(qubit) + 4, class: "wire-name" }, `q${qubit}`),
    draw("line", { x1: LEFT - 8, y1: y(qubit), x2: width, y2: y(qubit), class: "wire" }),
  ]).flat();
  const gates = circuit.gates.map((gate) => {
    const x = LEFT + LAYER * (gate.layer + 0.5);
    const qubits = [...gate.controls, ...gate.targets];
    const angles = gate.angles.length ? `(${gate.angles.join(", ")})` : "";
    const parts = [draw("title", {}, `${gate.name}${angles} on ${qubits.map((qubit) => `q${qubit}`).join(" ")}`)];
    if (qubits.length > 1) {
      parts.push(draw("line", { x1: x, y1: y(Math.min(...qubits)), x2: x, y2: y(Math.max(...qubits)), class: "link" }));
    }
    parts.push(...gate.controls.map((qubit) => draw("circle", { cx: x, cy: y(qubit), r: 4.5, class: "dot" })));
    parts.push(...gate.targets.flatMap((qubit) => symbol(gate, x, y(qubit))));
    return draw("g", {}, ...parts);
  });
  const sizes = { width, height, viewBox: `0 0 ${width} ${height}` };
  return draw("svg", { ...sizes, role: "img", "aria-label": circuit.words }, ...wires, ...gates);
}

function symbol(gate, x, y) {
  const isControlled = gate.controls.length > 0;
  if (gate.base === "swap") return [draw("path", { d: `M${x - 6} ${y - 6}l12 12m0-12l-12 12`, class: "link" })];
  if (isControlled && gate.base === "x") {
    return [draw("circle", { cx: x, cy: y, r: 10, class: "ring" }), draw("path", { d: `M${x - 10} ${y}h20m-10-10v20`, class: "link" })];
  }
  if (isControlled && gate.base === "z") return [draw("circle", { cx: x, cy: y, r: 4.5, class: "dot" })];
  const letters = gate.base.endsWith("dg") ? `${gate.base.slice(0, -2).toUpperCase()}†` : gate.base.toUpperCase();
  return [
    draw("rect", { x: x - BOX / 2, y: y - BOX / 2, width: BOX, height: BOX, rx: 4, class: "box" }),
    draw("text", { x, y: y + (gate.angles.length === 1 ? 0 : 5), class: "gate-name" }, letters),
    ...(gate.angles.length === 1 ? [draw("text", { x, y: y + BOX / 2 - 2, class: "gate-angle" }, gate.angles[0])] : []),
  ];
}

// ----------------------------------------------------------------------------------------------- gate by gate

const CAPTIONS = {
  unitary: "The remaining unitary after these gates: U V†, where U is the target and V the unitary of the gates so far. "
    + "It ends as the identity. Each square is an entry: stronger colours mean larger entries, the hue is the phase.",
  state: "The amplitudes of the state that these gates prepare from |0…0⟩ (bars) and those of the target (frames).",
  entanglement: "Entanglement of each qubit with all others after these gates: entropy in bits, at most 1.",
};
const ORDER = "The circuit is replayed from its first gate to its last, in its simplified form; "
  + "the model may have written it in another order.";

/** Return the replay controls of a circuit: a button, a slider, and a scene that follows it. */
function player(answer, svg, request) {
  const last = answer.steps.length - 1;
  const gates = [...svg.querySelectorAll("g")];
  const slider = make("input", { type: "range", min: 0, max: last, step: 1, value: 0, "aria-label": "gates so far" });
  const play = make("button", { type: "button", className: "quiet" }, "Play");
  const told = make("output", {});
  const scene = SCENES[answer.kind](answer, request);
  let timer = null;
  const pause = () => {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
  };
  const show = () => {
    const step = Number(slider.value);
    gates.forEach((gate, number) => gate.setAttribute("class", number >= step ? "later" : number === step - 1 ? "now" : ""));
    const gate = answer.gates[step - 1];
    const words = gate ? `${gate.name} on ${[...gate.controls, ...gate.targets].map((q) => `q${q}`).join(" ")}` : "no gate yet";
    told.textContent = `${step} of ${last}: ${words}`;
    slider.setAttribute("aria-valuetext", told.textContent);
    scene.show(answer.steps[step]);
  };
  slider.addEventListener("input", show);
  slider.addEventListener("pointerdown", pause);
  play.addEventListener("click", () => {
    if (timer !== null) return pause();
    if (Number(slider.value) === last) slider.value = 0;
    show();
    play.textContent = "Pause";
    timer = setInterval(() => {
      if (!slider.checkVisibility() || Number(slider.value) >= last) return pause();
      slider.value = Number(slider.value) + 1;
      show();
    }, 700);
  });
  return [
    make("div", { className: "player" }, play, slider, told),
    make("div", { className: "scene" }, scene.element, make("div", {},
      make("p", { className: "hint" }, CAPTIONS[answer.kind]),
      make("ul", { className: "keys" }, ...(scene.keys || [])),
      make("p", { className: "hint" }, ORDER))),
  ];
}

const hue = (real, imaginary) => (215 + (Math.atan2(imaginary, real) * 180) / Math.PI + 360) % 360;

function colour(real, imaginary) {
  const size = Math.min(Math.hypot(real, imaginary), 1);
  return size < 0.005 ? null : `hsl(${hue(real, imaginary)} 75% 52% / ${0.12 + 0.88 * size})`;
}

function bars(names) {
  const rows = names.map((name) => {
    const bar = make("u"), frame = make("s", { hidden: true }), text = make("span");
    return { bar, frame, text, row: make("div", {}, make("b", {}, name), make("i", {}, bar, frame), text) };
  });
  return { rows, element: make("div", { className: "bars" }, ...rows.map((one) => one.row)) };
}

const SCENES = {
  unitary(answer) {
    const size = answer.steps[0].values.length;
    const pixels = Math.max(Math.floor(640 / size), 4);
    const canvas = make("canvas", { width: size * pixels, height: size * pixels, role: "img" });
    const context = canvas.getContext("2d");
    const keys = [[1, 0, "1"], [0, 1, "i"], [-1, 0, "−1"], [0, -1, "−i"]].map(([real, imaginary, name]) =>
      make("li", {}, draw("svg", { viewBox: "0 0 8 8" }, draw("rect", { width: 8, height: 8, fill: colour(real, imaginary) })), name));
    return {
      element: canvas,
      keys,
      show({ values, overlap }) {
        context.clearRect(0, 0, canvas.width, canvas.height);
        values.forEach((row, i) => row.forEach(([real, imaginary], j) => {
          const fill = colour(real, imaginary);
          if (fill === null) return;
          context.fillStyle = fill;
          context.fillRect(j * pixels + 1, i * pixels + 1, pixels - 2, pixels - 2);
        }));
        canvas.setAttribute("aria-label", `matrix of ${size} by ${size}; overlap with the identity ${overlap}`);
      },
    };
  },
  state(answer) {
    const sizes = answer.wanted.map(([real, imaginary]) => Math.hypot(real, imaginary));
    const digits = Math.log2(sizes.length);
    const used = sizes.map((size, index) =>
      size > 0.001 || answer.steps.some(({ values }) => Math.hypot(...values[index]) > 0.001));
    const indices = [...sizes.keys()].filter((index) => used[index]);
    const { rows, element } = bars(indices.map((index) => `|${index.toString(2).padStart(digits, "0")}⟩`));
    return {
      element,
      show({ values }) {
        indices.forEach((index, row) => {
          const [real, imaginary] = values[index];
          rows[row].bar.style.width = `${100 * Math.min(Math.hypot(real, imaginary), 1)}%`;
          rows[row].bar.style.background = `hsl(${hue(real, imaginary)} 70% 52%)`;
          rows[row].frame.hidden = sizes[index] < 0.001;
          rows[row].frame.style.width = `${100 * Math.min(sizes[index], 1)}%`;
          const i = Math.abs(imaginary) < 0.0005 ? "" : ` ${imaginary < 0 ? "−" : "+"} ${Math.abs(imaginary).toFixed(2)}i`;
          rows[row].text.textContent = `${real.toFixed(2).replace("-", "−")}${i}`;
        });
      },
    };
  },
  entanglement(answer, request) {
    const { rows, element } = bars(request.srv.map((_, qubit) => `q${qubit}`));
    return {
      element,
      show({ srv: ranks, entropies }) {
        entropies.forEach((entropy, qubit) => {
          rows[qubit].bar.style.width = `${100 * Math.min(entropy, 1)}%`;
          rows[qubit].text.textContent = `${entropy.toFixed(2)}, rank ${ranks[qubit]}`;
        });
      },
    };
  },
};

// ------------------------------------------------------------------------------------------------------ start

async function start() {
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    find();
  });
  byId("stop").addEventListener("click", () => {
    byId("stop").disabled = true;
    ask("/api/stop", {}).catch(() => {});
  });
  byId("model").addEventListener("change", showModel);
  byId("size").addEventListener("change", () => {
    const size = Number(byId("size").value);
    showQubits(Array.from({ length: size }, (_, qubit) => (state.entangled[qubit] ? 2 : 1)));
  });
  byId("copy").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(byId("python").textContent);
      byId("copy").textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(byId("python"));
      byId("copy").textContent = "Press Ctrl-C";
    }
    setTimeout(() => { byId("copy").textContent = "Copy"; }, 2000);
  });
  for (const input of document.querySelectorAll("input[name=way]")) {
    input.addEventListener("change", () => showWay(input.value));
  }
  byId("qasm").value = PROGRAM;
  byId("qasm").placeholder = PROGRAM;
  try {
    const { models, max_seconds: maxSeconds } = await askJson("/api/models");
    state.models = models.filter((one) => one.command);
    state.maxSeconds = maxSeconds;
    byId("seconds").max = maxSeconds;
    const unusable = models.filter((one) => one.problem);
    byId("error").textContent = unusable.map((one) => one.problem).join("; ");
    showKinds();
    const words = recall();
    byId("find").disabled = false;
    if (words.get("run") === "1") {
      await find();
      if (words.get("watch") === "1") document.querySelector("[data-watch]")?.click();
    }
  } catch (problem) {
    byId("error").textContent = problem.message;
  }
}

start();
