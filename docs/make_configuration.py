"""Write docs/configuration.md from the schema; a test tells when it is stale. Run: python docs/make_configuration.py"""

from pathlib import Path

from quantum_diffusion.commands import COMMANDS
from quantum_diffusion.config.store import SECTIONS, preset_names
from quantum_diffusion.help import describe_keys


def render() -> str:
    """Return the page as Markdown."""
    lines = [
        "# Configuration",
        "",
        "Every key of every command, made from `src/quantum_diffusion/config/schema` by this folder's script.",
        "Set a key on the command line as `key=value`, choose a preset as `section=NAME`; presets live in `conf/`.",
    ]
    for name, command in COMMANDS.items():
        presets = ", ".join(f"`{preset}`" for preset in preset_names(command.section))
        lines += ["", f"## quantum-diffusion {name}", "", str(command.run.__doc__)]
        lines += [f"Presets (`{command.section}=NAME`): {presets}." if presets else "No presets.", ""]
        lines += ["| key | values | default | meaning |", "|---|---|---|---|"]
        for key, values, default, meaning in describe_keys(SECTIONS[command.section], command.section):
            lines.append(f"| `{key}` | {values} | {default} | {meaning.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (Path(__file__).parent / "configuration.md").write_text(render(), encoding="utf-8")
