"""The commands models, ui, push and pull."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from quantum_diffusion.config.schema import ModelsConfig, PullConfig, PushConfig, UiConfig
from quantum_diffusion.errors import counted
from quantum_diffusion.jobs import Outcome


def models(config: ModelsConfig) -> Outcome:
    """List the pretrained models and those in a folder."""
    from quantum_diffusion import console
    from quantum_diffusion.cards import read_card
    from quantum_diffusion.pretrained import PREFIX, WEIGHTS, pretrained_names

    folders = {PREFIX + name: WEIGHTS / name for name in pretrained_names()}
    figures = {}
    if config.folder is not None:
        from quantum_diffusion.training.register import ModelManager

        for entry in ModelManager.from_folder(config.folder).list():
            folders[str(entry.folder)] = entry.folder
            accuracies = {key: value for key, value in entry.metrics.items() if "accuracy" in key or "exact" in key}
            figures[str(entry.folder)] = ", ".join(f"{key} {value:.3f}" for key, value in accuracies.items())
    rows: list[dict[str, Any]] = []
    for name, folder in folders.items():
        card = asdict(read_card(folder))
        rows.append({"name": name, **card, "figures": card["figures"] or figures.get(name, "")})
    for row in rows:
        console.out.print(f"\n{row['name']}" + (f"  (quantum-diffusion {row['command']})" if row["command"] else ""))
        for text in filter(None, (row["answers"], row["figures"])):
            console.out.print(f"  {text}")
    console.out.print(
        "\nsample, compile and prepare use pretrained models by default; their cards are in docs/pretrained.md"
    )
    return Outcome(report={"models": rows})


def ui(config: UiConfig) -> Outcome:
    """Serve a local web page for querying models and replaying their circuits, until Ctrl-C."""
    from quantum_diffusion import console
    from quantum_diffusion.ui.server import PageServer

    server = PageServer(config)
    console.out.print(f"serving at {server.address} (Ctrl-C to stop)")
    if not server.is_private:
        console.out.print(f"anyone who can reach ui.host={config.host} can run searches here: there is no password")
    if config.open_browser:
        server.open_browser()
    server.run()
    console.out.print(f"stopped after {counted(server.num_searches, 'search', 'searches')}")
    return Outcome(report={"address": server.address, "num_searches": server.num_searches})


def push(config: PushConfig) -> Outcome:
    """Upload a model or a data set to the Hugging Face Hub."""
    from quantum_diffusion import console
    from quantum_diffusion.interop.exchange import push_folder

    url = push_folder(config.folder, config.address, config.private)
    console.out.print(f"uploaded {config.folder}: {url}")
    return Outcome(report={"url": url})


def pull(config: PullConfig) -> Outcome:
    """Download a model or a data set from the Hugging Face Hub."""
    from quantum_diffusion import console
    from quantum_diffusion.interop.exchange import pull_folder

    what = pull_folder(config.address, config.kind, config.output_path)
    console.out.print(f"downloaded {config.address} ({what}) to {config.output_path}")
    return Outcome(report={"folder": config.output_path, "what": what})
