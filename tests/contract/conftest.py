"""The real executable against a real agent in real namespaces, as a container runtime uses it."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.chain_runtime import Runtime
from tests.support.cluster import Cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Two nodes without agents; every namespace, mount and process goes when the test ends, however it ends."""
    with ExitStack() as stack:
        yield Cluster(tmp_path, stack)


@pytest.fixture
def runtime(cluster: Cluster) -> Runtime:
    """The runtime of node 1, whose agent is ready."""
    cluster.start(1)
    return Runtime(cluster, 1)
