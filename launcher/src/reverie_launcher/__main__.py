"""The `reverie` command."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from reverie_launcher.chaos.command import chaos
from reverie_launcher.client.address import DEFAULT_URL
from reverie_launcher.client.refusals import sentence
from reverie_launcher.comfy_commands import comfy_app
from reverie_launcher.dream_commands import dream, dreams_app
from reverie_launcher.exits import ExitCode, Failure, cannot_write, output_failure
from reverie_launcher.options import AsJson, TokenFile, Url, server
from reverie_launcher.queue_commands import priority, queue_app, retry

EXIT_CODES = """
Exit codes: 0 done · 1 the job failed, or not ready · 2 wrong usage or input · 3 no server there ·
4 it took too long · 5 the job was cancelled by somebody else · 130 ended by Ctrl-C
"""

app = typer.Typer(
    name="reverie",
    help="Self-hosted image generation: start everything, generate, look, cancel.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"reverie {version('reverie-launcher')}")
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of the command itself."""


class JobStateName(StrEnum):
    """What `--state` takes."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@app.command()
def up(
    *,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; 127.0.0.1 keeps it to this machine.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port of the HTTP and WebSocket API; 4200.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Where jobs and pictures are kept; ./reverie-data.")
    ] = None,
    nats: Annotated[
        str | None, typer.Option(help="A running NATS server with JetStream; without it one is started.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="A diffusers folder, a .safetensors file or a Hugging Face id; the built-in model."
        ),
    ] = None,
    modes: Annotated[
        Path | None, typer.Option(help="A modes.yml with several models, their defaults and LoRAs.")
    ] = None,
    comfy: Annotated[
        list[str] | None,
        typer.Option(help="A ComfyUI server to give work to, [NAME=]URL; may be repeated.", metavar="URL"),
    ] = None,
    no_generate: Annotated[bool, typer.Option("--no-generate", help="Do not make a first picture.")] = False,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings of the services.")] = None,
) -> None:
    """Start NATS and all services on this machine, make a first picture, and serve until Ctrl-C."""
    from reverie_launcher.plan import UpOptions, resolve
    from reverie_launcher.up import Platform

    options = UpOptions(host, port, data, nats, model, config, not no_generate, modes, tuple(comfy or ()))
    plan = resolve(options, os.environ)

    async def serve() -> ExitCode:
        return await Platform(plan, os.environ, Console()).run()

    code = asyncio.run(serve())
    if code is ExitCode.INTERRUPTED:
        raise Failure(
            code, "Ended at once, without draining.", advice="Unfinished jobs go on at the next start."
        )


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="What the picture shows.")],
    *,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="File or folder; - is stdout.  Never written over another file."),
    ] = None,
    size: Annotated[str | None, typer.Option(help="Width x height in pixels, such as 512x512.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps, 1 to 150.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed makes the same picture.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale, 0 to 20.")] = None,
    negative: Annotated[str | None, typer.Option(help="What the picture shall not show.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="Name of the scheduler (sampler).")] = None,
    mode: Annotated[str | None, typer.Option(help="Which of the server's modes to use.")] = None,
    superres: Annotated[bool, typer.Option("--superres", help="Enlarge it by super-resolution.")] = False,
    priority: Annotated[
        str | None, typer.Option(help="urgent, normal, batch or background (or 0 to 3).")
    ] = None,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
    no_preview: Annotated[
        bool, typer.Option("--no-preview", help="Show no pictures in the terminal.")
    ] = False,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds to wait for the picture; the job goes on after it.")
    ] = None,
) -> None:
    """Make one picture and save it.  Ctrl-C cancels the job."""
    from reverie_launcher import generate as command

    request = command.Request(
        prompt, negative, size, steps, guidance, seed, scheduler, mode, superres, priority=priority
    )
    asyncio.run(
        command.generate(
            server(url, token_file),
            request,
            target=output,
            as_json=as_json,
            preview=not no_preview,
            timeout_s=timeout,
        )
    )


@app.command()
def jobs(
    state: Annotated[JobStateName | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many, newest first.")] = 20,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    from reverie_launcher import lists

    asyncio.run(lists.jobs(server(url, token_file), state=state, limit=limit, as_json=as_json))


@app.command()
def cancel(
    job_ids: Annotated[list[str], typer.Argument(metavar="JOB...", help="Ids of jobs.")],
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Cancel jobs: waiting ones at once, running ones at their next step."""
    from reverie_launcher import lists

    asyncio.run(lists.cancel(server(url, token_file), job_ids, as_json=as_json))


@app.command()
def modes(
    *,
    switch: Annotated[
        str | None, typer.Option(metavar="MODE", help="Make this the mode of jobs that name none.")
    ] = None,
    reload: Annotated[bool, typer.Option("--reload", help="Have the workers read modes.yml again.")] = False,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """List the modes and their models, or change them."""
    from reverie_launcher import modes as command

    if switch is not None and reload:
        raise typer.BadParameter("give --switch or --reload, not both")
    address = server(url, token_file)
    if switch is not None:
        asyncio.run(command.switch(address, switch, as_json=as_json))
    elif reload:
        asyncio.run(command.reload(address, as_json=as_json))
    else:
        asyncio.run(command.show(address, as_json=as_json))


@app.command()
def status(url: Url = DEFAULT_URL, token_file: TokenFile = None, as_json: AsJson = False) -> None:
    """Show whether the server can work, its workers, queue and storage.  Exit code 1 if it cannot."""
    from reverie_launcher import lists

    if not asyncio.run(lists.status(server(url, token_file), as_json=as_json)):
        raise typer.Exit(ExitCode.FAILED)


@app.command()
def token(
    sub: Annotated[str, typer.Option(help="Whose jobs they will be: 1 to 128 visible characters.")],
    *,
    admin: Annotated[bool, typer.Option("--admin", help="May see and change everybody's jobs.")] = False,
    minutes: Annotated[float, typer.Option(min=0.1, help="How long it holds.")] = 60,
    config: Annotated[Path | None, typer.Option(help="TOML file that has auth.key.")] = None,
) -> None:
    """Print a token, signed with the server's auth.key (REVERIE_AUTH__KEY, or from --config)."""
    from reverie_launcher.client.credentials import make_token

    print(make_token(os.environ, config, owner=sub, admin=admin, lifetime_s=minutes * 60))


app.command()(chaos)
app.command()(priority)
app.command()(retry)
app.add_typer(queue_app, name="queue")
app.add_typer(comfy_app, name="comfy")
app.command()(dream)
app.add_typer(dreams_app, name="dreams")


def main() -> None:
    """Run the command; whatever happens ends with one sentence and an exit code, never with a trace."""
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # `reverie jobs | head`: nobody reads on, and nothing is wrong
        _abandon_stdout()
        code = ExitCode.OK
    except OSError as error:
        _abandon_stdout()
        code = complain(output_failure(error), as_json=False)
    sys.exit(code)


def _abandon_stdout() -> None:
    """What is still buffered cannot be written; the interpreter would try again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(arguments: Sequence[str]) -> int:
    """The exit code of a command line."""
    options = list(arguments[: arguments.index("--")] if "--" in arguments else arguments)
    as_json = "--json" in options
    try:
        # Not standalone: errors come back here as exceptions, an exit as its code.
        code = int(app(list(arguments), standalone_mode=False) or ExitCode.OK)
    except Failure as failure:
        return complain(failure, as_json=as_json)
    except typer.TyperException as error:
        if not error.format_message():  # no command: the help that was printed says it all
            return ExitCode.USAGE
        command = f"reverie {options[0]}" if options and not options[0].startswith("-") else "reverie"
        usage = Failure(
            ExitCode.USAGE, sentence(error.format_message()), advice=f"See {command} --help.", code="usage"
        )
        return complain(usage, as_json=as_json)
    except Exception as error:
        if isinstance(error, BrokenPipeError) or cannot_write(error):
            raise
        if os.environ.get("REVERIE_DEBUG"):
            raise
        defect = Failure(
            ExitCode.FAILED,
            f"This is a defect of the reverie command ({type(error).__name__}: {error}).",
            advice="Run it again with REVERIE_DEBUG=1 for the details, and report them.",
            code="internal",
        )
        return complain(defect, as_json=as_json)
    if code == ExitCode.INTERRUPTED:  # typer makes this of a KeyboardInterrupt
        return complain(Failure(ExitCode.INTERRUPTED, "Interrupted."), as_json=as_json)
    return code


def complain(failure: Failure, *, as_json: bool) -> int:
    """Tell why the command failed: as JSON on stdout, or as one sentence on stderr."""
    if as_json:
        error = {"code": failure.code, "message": failure.message, "advice": failure.advice}
        error |= {"jobId": failure.job_id} if failure.job_id else {}
        print(msgspec.json.encode({"error": error, "exitCode": failure.exit_code}).decode())
    else:
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        console.print(Text.assemble(("reverie: ", "bold red"), failure.sentence))
    return failure.exit_code


if __name__ == "__main__":
    main()
