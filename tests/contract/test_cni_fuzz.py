"""Whatever a runtime sends, the executable answers in JSON with a documented code, and prints nothing else."""

import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plugin.core.cni.types import VERSIONS
from plugin.executables import plugin_executable
from tests.support.cluster import Cluster
from tests.support.runtime import Ran, Runtime

DOCUMENTED = {1, 2, 3, 4, 5, 6, 7, 8, 11, 50, 51}  # not 999: that would be a bug of ours
OF_THE_AGENT = {100, 101, 102, 103}
VERBS = ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION", ""]

values = st.one_of(
    st.sampled_from([b"", b"eth0", b"/proc/self/ns/uts", b"/", b"..", b"a/b", b"weave", b"x" * 300]),
    st.binary(max_size=20).map(lambda raw: raw.replace(b"\0", b"")),
)
environments = st.fixed_dictionaries(
    {},
    optional={
        "CNI_COMMAND": st.one_of(st.sampled_from(VERBS).map(str.encode), values),
        "CNI_CONTAINERID": st.one_of(st.just(b"abc123"), values),
        "CNI_NETNS": values,
        "CNI_IFNAME": st.one_of(st.just(b"eth0"), values),
        "CNI_ARGS": values,
        "CNI_PATH": st.one_of(st.just(b"/opt/cni/bin"), values),
        "CNI_NETNS_OVERRIDE": values,
    },
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["weave", *VERSIONS]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
configurations = st.dictionaries(
    st.sampled_from(["name", "cniVersion", "type", "prevResult", "ipam", "runtimeConfig"]), json_values
)
stdins = st.one_of(
    st.binary(max_size=40),
    json_values.map(json.dumps).map(str.encode),
    configurations.map(json.dumps).map(str.encode),
    st.sampled_from(VERSIONS).map(lambda version: json.dumps({"name": "weave", "cniVersion": version}).encode()),
)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "weave-net"
    path.write_bytes(plugin_executable(os.path.realpath(sys.executable)))
    path.chmod(0o755)
    return path


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(environment=environments, stdin=stdins)
def test_any_environment_and_stdin_get_valid_json_and_a_documented_code(
    program: Path, environment: dict[str, bytes], stdin: bytes
) -> None:
    folder = str(program.parent)
    done = subprocess.run(
        [program],
        input=stdin,
        env={
            **{name: os.fsdecode(value) for name, value in environment.items()},
            "WEAVE_SOCKET": f"{folder}/nobody.sock",
            "WEAVE_DEL_QUEUE": f"{folder}/queue",
            "WEAVE_ADD_WAIT_S": "0",
            "WEAVE_ANSWER_WAIT_S": "1",
        },
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert b"Traceback" not in done.stderr
    if done.returncode == 0:
        assert done.stdout == b"" or json.loads(done.stdout)["supportedVersions"] == list(VERSIONS)
        return
    assert (done.returncode, done.stderr) == (1, b"")
    error = json.loads(done.stdout)
    assert error["code"] in DOCUMENTED
    assert error["cniVersion"] in VERSIONS
    assert error["msg"]


# --- with a real agent: what is nearly right ------------------------------------------------------------------------
VALID: dict[str, Any] = {
    "cniVersion": "1.1.0", "name": "weave", "type": "weave-net", "bridge": "weave", "mtu": 1400, "hairpinMode": True,
    "ipMasq": False, "isGateway": False,
    "ipam": {"type": "", "subnet": "10.32.0.0/16", "gateway": "10.32.0.1", "routes": [{"dst": "0.0.0.0/0", "gw": "10.32.0.1"}]},
    "dns": {"nameservers": ["10.32.0.53"], "domain": "lab", "search": ["lab"], "options": ["ndots:2"]},
    "capabilities": {"ips": True, "mac": True, "dns": True, "portMappings": True, "bandwidth": True},
    "runtimeConfig": {
        "ips": ["10.32.0.77/12"], "mac": "0a:58:0a:20:00:4d", "dns": {"servers": ["10.32.0.54"]},
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
        "bandwidth": {"ingressRate": 1000000, "ingressBurst": 4294967295},
    },
    "args": {"cni": {"ips": ["10.32.0.77"], "mac": "0a:58:0a:20:00:4d", "labels": [{"key": "a", "value": "b"}]}},
    "prevResult": {
        "cniVersion": "1.1.0", "interfaces": [{"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": "/x"}],
        "ips": [{"address": "127.0.0.1/8", "interface": 0}], "routes": [{"dst": "10.0.0.0/8"}], "dns": {},
    },
    "cni.dev/valid-attachments": [{"containerID": "red", "ifname": "eth0"}],
}  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield (*path, key)
        yield from places(part, (*path, key))


odd_values = st.one_of(
    json_values,
    st.sampled_from(
        [
            "10.32.0.0/12",
            "10.32.0.9",
            "10.32.0.9/33",
            "::1",
            "999.1.1.1",
            "0.0.0.0/0",
            "weave",
            "weave-ipam",
            "ff:ff:ff:ff:ff:ff",
        ]
    ),
    st.sampled_from([-1, 0, 1, 67, 68, 1450, 65535, 2**31, 2**63, 2**70, 1e308, 0.5]),
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid configuration of which some parts are left out, and one to three are something else."""
    conf = copy.deepcopy(VALID)
    for key in draw(st.sets(st.sampled_from([key for key in VALID if key != "name"]))):
        del conf[key]
    for _ in range(draw(st.integers(0, 3))):
        *way, last = draw(st.sampled_from(list(places(conf))))
        parent: Any = conf
        for key in way:
            parent = parent[key]
        if draw(st.booleans()):
            parent[last] = draw(odd_values)
        else:
            parent[last] = draw(st.sampled_from([[parent[last]], {"x": parent[last]}, [parent[last]] * 2, None]))
    text = json.dumps(conf).encode()
    cut = draw(st.integers(0, 20))
    return text[: -cut * len(text) // 20 or None] if cut < 3 else text


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Runtime, str, dict[str, Any]]]:
    with ExitStack() as stack:
        cluster = Cluster(tmp_path_factory.mktemp("fuzz-agent"), stack)
        cluster.start(1)
        made = Runtime(cluster)
        yield made, made.sandbox(), made.traces()


@pytest.mark.kernel
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces")
@settings(max_examples=120, deadline=None)
@given(
    verbs=st.lists(st.sampled_from(["ADD", "ADD", "CHECK", "GC", "STATUS", "DEL"]), min_size=1, max_size=3),
    stdin=mutated(),
    arguments=st.sampled_from(
        ["", "", "IP=10.32.0.80", "IP=x", "K8S_POD_NAME=a;IgnoreUnknown=1", "=", "A=B", "MAC=0", "\xff;;"]
    ),
)
def test_a_nearly_valid_configuration_is_served_or_refused_and_leaves_nothing(
    runtime: tuple[Runtime, str, dict[str, Any]], verbs: list[str], stdin: bytes, arguments: str
) -> None:
    weave, sandbox, before = runtime
    for verb in verbs:
        ran = weave.start(verb, "red", sandbox, stdin=stdin, CNI_ARGS=arguments).end()
        assert ran.stderr == ""
        if ran.code == 0:
            assert (verb == "ADD") == bool(ran.stdout)
            assert verb != "ADD" or ran.address
        else:
            assert ran.error["code"] in DOCUMENTED | OF_THE_AGENT, (verb, stdin, ran)
            assert ran.error["cniVersion"] in VERSIONS
            assert ran.error["msg"]
    assert weave.call("DEL", "red", sandbox) == Ran(0, "")
    weave.assert_no_traces_but(before)
