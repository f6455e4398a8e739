"""Whatever a runtime sends, the executable answers in JSON with a documented code, and prints nothing else."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plugin.cni import executable_bytes
from plugin.core.cni import VERSIONS

DOCUMENTED = {1, 2, 3, 4, 5, 6, 7, 8, 11, 50, 51}  # not 999: that would be a bug of ours
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
    path.write_bytes(executable_bytes(os.path.realpath(sys.executable)))
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
