"""`agentspace completion`: a shell's completion script. Calls click's generator."""

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of SHELL, for instance: eval "$(agentspace completion bash)"."""
    kind = get_completion_class(shell)
    assert kind is not None
    print(kind(context.find_root().command, {}, "agentspace", "_AGENTSPACE_COMPLETE").source())
