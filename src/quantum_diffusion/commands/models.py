"""The commands around models: which there are, a page to ask them, and the Hub."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from quantum_diffusion.config.schema import ModelsConfig, PullConfig, PushConfig, UiConfig
from quantum_diffusion.errors import counted
from quantum_diffusion.jobs import Outcome


def models(config: ModelsConfig) -> Outcome:
    """List the models that come with the package, and those in a folder."""
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
        "\nsample, compile and prepare take pretrained ones where none is named; cards: docs/pretrained.md"
    )
    return Outcome(report={"models": rows})


def ui(config: UiConfig) -> Outcome:
    """Serve a page on this machine where you ask models and watch circuits being written; Ctrl-C ends it."""
    from quantum_diffusion import console
    from quantum_diffusion.ui.server import PageServer

    server = PageServer(config)
    console.out.print(f"the page is at {server.address} (Ctrl-C ends it)")
    if not server.is_private:
        console.out.print(f"anyone who reaches ui.host={config.host} can search on this machine: there is no password")
    if config.open_browser:
        server.open_browser()
    server.run()
    console.out.print(f"the page is closed, after {counted(server.num_searches, 'search', 'searches')}")
    return Outcome(report={"address": server.address, "num_searches": server.num_searches})


def push(config: PushConfig) -> Outcome:
    """Upload a model or a data set to the Hugging Face Hub."""
    from quantum_diffusion import console
    from quantum_diffusion.interop.exchange import push_folder

    url = push_folder(config.folder, config.address, config.private)
    console.out.print(f"{config.folder} is uploaded: {url}")
    return Outcome(report={"url": url})


def pull(config: PullConfig) -> Outcome:
    """Download a model or a data set from the Hugging Face Hub."""
    from quantum_diffusion import console
    from quantum_diffusion.interop.exchange import pull_folder

    what = pull_folder(config.address, config.kind, config.output_path)
    console.out.print(f"{config.address}: {what}, in {config.output_path}")
    return Outcome(report={"folder": config.output_path, "what": what})
