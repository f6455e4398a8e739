"""The state folder of a running agent is deleted, covered by a read-only one, or filled: nothing is lost or pretended."""

import json
import os
import shutil
from pathlib import Path

import pytest

from plugin.link import netns
from tests.support.cluster import Cluster, wait_for

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
]
_MS_RDONLY = 1


def state(cluster: Cluster) -> Path:
    return cluster.tmp / "d1" / "state"


def events(cluster: Cluster, event: str) -> list[dict[str, str]]:
    lines = [json.loads(line) for line in cluster.log(1).splitlines()]
    return [line for line in lines if line["event"] == event]


def troubles(cluster: Cluster) -> dict[str, str]:
    """What status shows as wrong: cause by object."""
    return {one["object"]: one["cause"] for one in json.loads(cluster.api(1, "/status")[1])["problems"]}


def code(answer: tuple[int, str]) -> int:
    status, text = answer
    return 0 if status == 200 else int(json.loads(text)["code"])


def restarted(cluster: Cluster) -> set[str]:
    """What a new agent knows of the pods."""
    cluster.kill(1)
    cluster.start(1)
    return cluster.held(1)


def test_a_deleted_folder_is_there_again_within_a_second_and_with_everything(cluster: Cluster) -> None:
    cluster.mesh()
    _, red = cluster.add(1, "redpod")
    before = json.loads(cluster.api(1, "/status")[1])
    shutil.rmtree(state(cluster))
    wait_for(lambda: events(cluster, "state folder written anew"), "it is written anew", 3)
    assert "was deleted" in events(cluster, "state folder written anew")[0]["reason"]
    assert {path.name for path in state(cluster).iterdir()} == {
        "attachments.journal", "identity.json", "incarnation", "ring.json",
    }  # fmt: skip
    assert "state folder" in {one["object"] for one in json.loads(cluster.api(1, "/status")[1])["repairs"]}
    assert "state folder" not in troubles(cluster)
    _, green = cluster.add(1, "greenpod")
    assert restarted(cluster) == {red, green}
    after = json.loads(cluster.api(1, "/status")[1])
    assert [after[key] for key in ("uid", "bridge")] == [before[key] for key in ("uid", "bridge")]
    assert after["ipam"]["ring"] == before["ipam"]["ring"]
    assert '"pod without a record kept"' not in cluster.log(1)


def test_add_and_del_in_the_very_moment_that_the_folder_went_are_remembered(cluster: Cluster) -> None:
    cluster.start(1)
    red, _ = cluster.add(1, "redpod")
    shutil.rmtree(state(cluster))
    _, green = cluster.add(1, "greenpod")
    journal = (state(cluster) / "attachments.journal").read_text()
    assert green in journal, "success was said, so it is there"
    shutil.rmtree(state(cluster))
    assert code(cluster.cni(1, "DEL", red)) == 0
    assert restarted(cluster) == {green}


def test_under_a_read_only_folder_no_pod_is_added_and_every_pod_may_go(cluster: Cluster) -> None:
    cluster.start(1)
    red, _ = cluster.add(1, "redpod")
    blue, kept = cluster.add(1, "bluepod")
    netns.mount("tmpfs", state(cluster), "tmpfs", flags=_MS_RDONLY)
    cluster.stack.callback(umount, state(cluster))
    wait_for(lambda: events(cluster, "state folder in trouble"), "it is told", 3)
    assert "Read-only file system" in troubles(cluster)["state folder"]
    green = cluster.space("greenpod")
    assert code(cluster.cni(1, "ADD", green)) == 5
    assert cluster.pod_links(1) == {"vethweplredpodr", "vethweplbluepod"}
    assert code(cluster.cni(1, "DEL", red)) == 0
    assert cluster.pod_links(1) == {"vethweplbluepod"}
    umount(state(cluster))
    wait_for(lambda: events(cluster, "state folder written anew"), "it is mended", 3)
    assert code(cluster.cni(1, "ADD", green)) == 0
    assert cluster.ping(blue, "10.32.0.1") == 0
    wait_for(lambda: len(cluster.held(1)) == 2, "the DEL is finished")
    assert kept in restarted(cluster)
    assert len(cluster.held(1)) == 2


def test_a_full_disk_is_told_at_once_and_over_as_soon_as_there_is_room(cluster: Cluster) -> None:
    state(cluster).mkdir(parents=True)
    netns.mount("tmpfs", state(cluster), "tmpfs", options="size=256k")
    cluster.stack.callback(umount, state(cluster))
    cluster.start(1)
    red, _ = cluster.add(1, "redpod")
    filler = state(cluster) / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):  # noqa: PT012
        while True:
            file.write(bytes(4096))
    wait_for(lambda: events(cluster, "state folder in trouble"), "it is told", 3)
    assert "is full" in troubles(cluster)["state folder"]
    assert code(cluster.cni(1, "DEL", red)) == 0
    filler.unlink()
    wait_for(lambda: events(cluster, "state folder well") or events(cluster, "state folder written anew"), "well", 3)
    assert "state folder" not in troubles(cluster)
    _, green = cluster.add(1, "greenpod")
    wait_for(lambda: cluster.held(1) == {green}, "the DEL is finished")
    assert restarted(cluster) == {green}


def umount(path: Path) -> None:
    """Take the mount away, if it is still there."""
    if path.is_mount():
        netns.umount(path, netns.MNT_DETACH)
