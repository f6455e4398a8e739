"""The Kubernetes manifest: a DaemonSet that installs the plugin on every node and runs the agent there. Pure."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from plugin.core.errors import InputError
from testbed.deploy.node import Settings, configuration
from testbed.deploy.plan import render
from testbed.deploy.procedure import version

_IMAGE: Final = re.compile(r"[a-z0-9][\w./:@-]*")
_SECRET: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_OWN_SECRET: Final = "weave-password"  # noqa: S105 - its name
_ELSEWHERE: Final = "192.0.2.1"
"""Stands for the address of any node in a check (RFC 5737: nobody has it)."""


def manifest(
    *,
    peers: Sequence[str],
    pod_range: str | None = None,
    cluster: str | None = None,
    image: str | None = None,
    interpreter: Path | None = None,
    password: str | None = None,
    password_secret: str | None = None,
) -> str:
    """The YAML text.

    Args:
        peers: Addresses of nodes that are there for good, the control plane's: these make the first agreement.
        pod_range: The pod range; None: the agent's default.
        cluster: The cluster's name.
        image: The image, as the nodes pull it; None: one called after this version.
        interpreter: The Python of the nodes; None: found on each.
        password: What control messages are sealed with, in a Secret that comes along; None: none, or one that exists.
        password_secret: The Secret in kube-system that exists, whose key `password` they are sealed with.

    Raises:
        InputError: A value is none, or no peer is named.
    """
    if not peers:
        raise InputError(
            "wanted --peer: without a node that all agents know, each would begin a cluster of its own",
            hint="the address of a control plane node: kubectl get nodes -o wide",
        )
    if image is not None and not _IMAGE.fullmatch(image):
        raise InputError(
            f"--image: wanted the name of an image, found {image!r}", hint="registry.example/weavelab:0.1.0"
        )
    if password_secret is not None and not _SECRET.fullmatch(password_secret):
        raise InputError(f"--password-secret: wanted the name of a Secret, found {password_secret!r}")
    secret = _OWN_SECRET if password else password_secret
    settings = Settings(name="node", address=_ELSEWHERE, pod_range=pod_range, peers=tuple(peers), cluster=cluster)
    settings.check()
    configuration(settings, {})
    return render(
        "daemonset.yaml.j2",
        version=version(),
        image=image or f"weavelab:{version()}",
        command=_install_command(peers, pod_range, cluster, interpreter, secret),
        password=password,
        password_secret=secret,
    )


def _install_command(
    peers: Sequence[str],
    pod_range: str | None,
    cluster: str | None,
    interpreter: Path | None,
    password_secret: str | None,
) -> list[str]:
    """What the init container runs; Kubernetes puts name and address of the node in place of $(...)."""
    command = ["weavelab", "deploy", "--local", "--root=/host", "--only=plugin", "--only=config"]
    command += ["--node-name=$(NODE_NAME)", "--address=$(NODE_ADDRESS)", *(f"--peer={peer}" for peer in peers)]
    command += [f"--range={pod_range}"] if pod_range else []
    command += [f"--cluster={_literal(cluster)}"] if cluster else []
    command += [f"--interpreter={interpreter}"] if interpreter else []
    command += ["--password-file=/secret/password"] if password_secret else []
    return command


def _literal(text: str) -> str:
    """Kubernetes takes `$$` for a dollar, and `$(NAME)` for a variable."""
    return text.replace("$", "$$")
