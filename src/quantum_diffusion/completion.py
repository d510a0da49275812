"""Shell completion scripts for commands, keys and presets, printed by `quantum-diffusion completion`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_BASH = """# quantum-diffusion: completion for {shell}
_quantum_diffusion() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" words
    # bash splits words at =
    if [[ "$current" == "=" || "${{COMP_WORDS[COMP_CWORD-1]}}" == "=" ]]; then
        COMPREPLY=($(compgen -f -- "${{current#=}}"))
        return
    fi
    if (( COMP_CWORD == 1 )); then
        COMPREPLY=($(compgen -W "{commands}" -- "$current"))
        return
    fi
    case "${{COMP_WORDS[1]}}" in
{cases}
    esac
    compopt -o nospace
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _quantum_diffusion quantum-diffusion
"""

_ZSH = "autoload -Uz bashcompinit && bashcompinit\n"


def completion_script(shell: str, words: Mapping[str, Sequence[str]]) -> str:
    """Return the completion script for a shell.

    Args:
        shell: "bash", "zsh" or "fish".
        words: The words that may follow each command.
    """
    if shell == "fish":
        lines = ["# quantum-diffusion: completion for fish", "complete -c quantum-diffusion -f"]
        names = " ".join(words)
        lines.append(f"complete -c quantum-diffusion -n __fish_use_subcommand -a '{names}'")
        lines += [
            f"complete -c quantum-diffusion -n '__fish_seen_subcommand_from {name}' -a '{' '.join(following)}'"
            for name, following in words.items()
        ]
        return "\n".join(lines) + "\n"
    cases = "\n".join(f'        {name}) words="{" ".join(following)}" ;;' for name, following in words.items())
    script = _BASH.format(shell=shell, commands=" ".join(words), cases=cases)
    return _ZSH + script if shell == "zsh" else script
