"""`weavelab deploy`: its options; what they do is in `testbed.deploy.procedure` and `testbed.deploy.kubernetes`."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import click

from plugin.core.errors import InputError, said_by

_PARTS: Final = ("agent", "config", "unit", "plugin")

_EXAMPLES: Final = """
\b
Examples:
  weavelab deploy --local                              the first node of a cluster: this machine
  weavelab deploy --local --peer 192.168.1.10          a further one; one address is enough
  weavelab deploy --local --dry-run                    what that would do
  weavelab deploy --local --uninstall
  weavelab deploy --ssh root@10.0.0.1 --ssh root@10.0.0.2 --range 10.64.0.0/16
  weavelab deploy --local --root image --only plugin --interpreter /usr/bin/python3
  weavelab deploy --manifest --peer 192.168.1.10 | kubectl apply -f -
"""


@click.command(name="deploy", epilog=_EXAMPLES, short_help="Install agent and plugin on real machines.")
@click.option("--local", is_flag=True, help="On this machine.")
@click.option(
    "--ssh",
    multiple=True,
    metavar="USER@HOST[:PORT]",
    help="On that one, as root; may be repeated: the first is the peer of the others.",
)
@click.option("--manifest", is_flag=True, help="On no machine: print a Kubernetes DaemonSet.")
@click.option(
    "--uninstall", is_flag=True, help="Remove what was installed, and nothing else; what was changed since stays."
)
@click.option("--purge", is_flag=True, help="With --uninstall: what the agent has written down, too (/var/lib/weave).")
@click.option("--dry-run", is_flag=True, help="Say what would be done.")
@click.option(
    "--force",
    is_flag=True,
    help="Put files aside that are not weavelab's, as NAME.before-weavelab, instead of refusing.",
)
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="With --local: a folder that is taken for the machine's root; nothing is started.",
)
@click.option(
    "--only", type=click.Choice(_PARTS), multiple=True, help="This part and no other; may be repeated. Default: all."
)
@click.option("--no-start", is_flag=True, help="Do not start the agent.")
@click.option("--interpreter", type=click.Path(path_type=Path), help="The Python 3.11 to 3.13 to use there.")
@click.option("--node-name", metavar="NAME", help="The node's name in the cluster. Default: its host name.")
@click.option("--address", metavar="ADDRESS", help="By which other nodes reach it. Default: as its routes have it.")
@click.option("--uplink", metavar="INTERFACE", help="The interface with that address.")
@click.option("--range", "pod_range", metavar="CIDR", help="The pod range, the same on all nodes.")
@click.option("--peer", multiple=True, metavar="ADDRESS", help="A node that is there; one is enough. May be repeated.")
@click.option("--initial-peers", type=int, metavar="N", help="How many agents make the first agreement.")
@click.option("--cluster", metavar="NAME", help="The cluster's name, the same on all nodes.")
@click.option(
    "--password-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="One line: what control messages are sealed with, the same on all nodes.",
)
@click.option("--image", metavar="IMAGE", help="With --manifest: the image. Default: weavelab and its version.")
@click.option(
    "--password-secret",
    metavar="NAME",
    help="With --manifest: a Secret in kube-system with a key `password`. Default: a new one, of 32 random bytes.",
)
@click.option("--no-password", is_flag=True, help="With --manifest: none at all.")
def deploy(**options: Any) -> None:
    """Install the agent, the CNI plugin, the command `weave` and a systemd unit, or upgrade or remove them.

    What is not said about a node stays as it is in its /etc/weave/agent.json.
    """
    _check_combination(options)
    if options["manifest"]:
        _print_manifest(options)
    elif options["uninstall"]:
        _uninstall(options)
    else:
        _install(options)


def _check_combination(options: dict[str, Any]) -> None:
    """See that the options go together.

    Raises:
        click.UsageError: They do not.
    """
    if sum((options["local"], bool(options["ssh"]), options["manifest"])) != 1:
        raise click.UsageError("give one of --local, --ssh and --manifest")
    node = ("node_name", "address", "uplink", "initial_peers", "password_file")
    install = ("only", "no_start", "interpreter", "force", *node, "pod_range", "peer", "cluster")
    misplaced = {
        "--manifest": ("root", "uninstall", "purge", "dry_run", "force", "only", "no_start", *node),
        "--ssh": ("root", "image", "password_secret", "no_password"),
        "--local": ("image", "password_secret", "no_password"),
        "--uninstall": install,
    }
    for mode, names in misplaced.items():
        for name in names:
            given = options[name] is not None and options[name] is not False and options[name] != ()
            if options[mode[2:]] and given:
                raise click.UsageError(f"--{name.replace('pod_', '').replace('_', '-')} does not go with {mode}")
    if options["purge"] and not options["uninstall"]:
        raise click.UsageError("--purge goes with --uninstall")
    if len(options["ssh"]) > 1 and (options["node_name"] or options["address"]):
        raise click.UsageError("--node-name and --address are one node's: give them with one --ssh")


def _install(options: dict[str, Any]) -> None:
    from testbed.deploy.node import Settings  # noqa: PLC0415 - `--help` must not wait for it
    from testbed.deploy.procedure import Wanted, deploy_to  # noqa: PLC0415

    settings = Settings(
        name=options["node_name"],
        address=options["address"],
        uplink=options["uplink"],
        pod_range=options["pod_range"],
        peers=options["peer"] or None,
        initial_peers=options["initial_peers"],
        cluster=options["cluster"],
        password=_password(options["password_file"]),
    )
    settings.check()
    for machine, say in _machines(options):
        wanted = Wanted(
            settings,
            parts=tuple(part for part in _PARTS if not options["only"] or part in options["only"]),
            interpreter=options["interpreter"],
            start=not options["no_start"],
            force=options["force"],
            dry_run=options["dry_run"],
        )
        address = deploy_to(machine, wanted, say)
        if len(options["ssh"]) > 1 and settings.peers is None and address:
            # As in a lab: one address is all that an agent is told of the others, the first is told none.
            settings = _with_peer(settings, address)


def _uninstall(options: dict[str, Any]) -> None:
    from testbed.deploy.procedure import remove_from  # noqa: PLC0415

    for machine, say in _machines(options):
        remove_from(machine, purge=options["purge"], dry_run=options["dry_run"], say=say)


def _machines(options: dict[str, Any]) -> Any:
    """Each machine in turn, with a way to speak about it; it is let go of afterwards."""
    from testbed.deploy import ssh  # noqa: PLC0415
    from testbed.deploy.machine import LocalMachine  # noqa: PLC0415

    if options["local"]:
        root: Path = options["root"] or Path("/")
        if not root.is_dir():
            raise InputError(f"--root: wanted a folder, found none at {root}", hint=f"mkdir -p {root}")
        machine = LocalMachine(root)
        with machine.alone():
            yield machine, click.echo
        return
    for target in options["ssh"]:
        ssh.parse_target(target)
    for target in options["ssh"]:
        with ExitStack() as stack:
            remote = stack.enter_context(ssh.connect(target))
            prefix = f"{remote.name}: " if len(options["ssh"]) > 1 else ""
            yield remote, lambda line, prefix=prefix: click.echo(prefix + line)


def _print_manifest(options: dict[str, Any]) -> None:
    import secrets  # noqa: PLC0415

    from testbed.deploy.kubernetes import manifest  # noqa: PLC0415

    if options["no_password"] and options["password_secret"]:
        raise click.UsageError("--no-password does not go with --password-secret")
    given = options["no_password"] or options["password_secret"]
    text = manifest(
        peers=options["peer"],
        pod_range=options["pod_range"],
        cluster=options["cluster"],
        image=options["image"],
        interpreter=options["interpreter"],
        password=None if given else secrets.token_hex(32),
        password_secret=options["password_secret"],
    )
    click.echo(text, nl=False)


def _with_peer(settings: Any, address: str) -> Any:
    from dataclasses import replace  # noqa: PLC0415

    return replace(settings, peers=(address,))


def _password(file: Path | None) -> str | None:
    """The first line of a file, without its end.

    Raises:
        InputError: There is nothing in it, or it is no text.
    """
    if file is None:
        return None
    try:
        password = file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--password-file: {file} cannot be read: {said_by(error)}") from error
    if not password or "\n" in password:
        raise InputError(f"--password-file: wanted one line in {file}, found {len(password.splitlines())}")
    return password
