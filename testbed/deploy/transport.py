"""What is needed of a node of a lab to deploy to it (`local.LocalTransport`); real machines are `machine.Machine`s."""

from collections.abc import Sequence
from typing import Protocol

from plugin.core.errors import CheckError
from testbed.deploy.plan import DeployFile, DeployPlan, Service


class DeployError(CheckError):
    """A node could not be given what the plan says."""


class Transport(Protocol):
    """A way onto one node."""

    @property
    def node(self) -> str:
        """The node's name, for messages."""

    def install(self, files: Sequence[DeployFile], directories: Sequence[str]) -> None:
        """Make the directories, then write each file whole or not at all (temporary file, then rename).

        Raises:
            DeployError: A file there is not ours, or it could not be written.
        """

    def start(self, service: Service) -> int:
        """Start the program, detached from us; returns its pid on the node.

        Raises:
            DeployError: It could not be started.
        """

    def close(self) -> None:
        """Let go of the node; what was started stays."""


def refusal(node: str, path: str) -> DeployError:
    """The error for a file that is not ours."""
    return DeployError(
        f"wanted to write {path} on {node}, found a file there that weavelab did not write",
        hint="move it away if this node shall run weavelab's network",
    )


def is_ours(existing: bytes, file: DeployFile) -> bool:
    """Whether what is at the file's path was written by a deployment (this one or an earlier)."""
    return existing == file.content or file.mark in existing


def deploy(plan: DeployPlan, transport: Transport) -> None:
    """Carry out the plan's files; the agent is started apart from that, when all nodes have theirs.

    Raises:
        DeployError: See `Transport.install`.
    """
    from testbed.deploy.plan import parents  # noqa: PLC0415

    transport.install(plan.files, parents(plan.files, plan.agent))
