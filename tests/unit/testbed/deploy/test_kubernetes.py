"""The DaemonSet against the published schemas of Kubernetes, and against what it installs; the image's Containerfile."""

import re
import shlex
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from ruamel.yaml import YAML

from plugin.agent.config import AgentConfig
from plugin.core.errors import InputError
from testbed.cli import main as cli
from testbed.cli.deploy import deploy as deploy_command
from testbed.cli.main import weavelab
from testbed.deploy.kubernetes import manifest
from testbed.deploy.node import AGENT_PATH
from testbed.deploy.plan import CHAIN_PATH, CONFIG_PATH, PLUGIN_PATH
from testbed.deploy.record import RECORD_PATH
from tests.support.project import ROOT

VERSIONS = ["1.25", "1.31", str(kubernetes_validate.latest_version())]


def documents(**options: Any) -> list[dict[str, Any]]:
    text = manifest(**({"peers": ["192.168.1.10"]} | options))
    return list(YAML(typ="safe").load_all(text))


def daemonset(**options: Any) -> dict[str, Any]:
    return next(document for document in documents(**options) if document["kind"] == "DaemonSet")


def pod(**options: Any) -> dict[str, Any]:
    found: dict[str, Any] = daemonset(**options)["spec"]["template"]["spec"]
    return found


def mounts(container: dict[str, Any]) -> dict[str, str]:
    return {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}


ALL = {
    "pod_range": "10.64.0.0/16", "cluster": "a'b\"$(X)", "image": "registry.example:5000/net/weavelab@sha256:00ff",
    "interpreter": Path("/usr/bin/python3.12"), "password_secret": "weave-password", "peers": ["10.0.0.1", "10.0.0.2"],
}  # fmt: skip


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "options", [{}, ALL, {"password": "ab" * 32}], ids=["with no password", "with every option", "with a password"]
)
def test_the_published_schemas_accept_it_strictly(version: str, options: dict[str, Any]) -> None:
    kinds = []
    for document in documents(**options):
        kubernetes_validate.validate(document, version, strict=True)
        kinds.append(document["kind"])
    assert kinds == ["ServiceAccount", *(["Secret"] if "password" in options else []), "DaemonSet"]


@pytest.mark.parametrize("break_it", [
    lambda spec: spec.pop("selector"),
    lambda spec: spec["template"]["spec"].update(hostNetworks=True),
    lambda spec: spec["template"]["spec"]["containers"][0].update(image=7),
])  # fmt: skip
def test_the_published_schemas_would_notice(break_it: Any) -> None:
    document = daemonset()
    break_it(document["spec"])
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, VERSIONS[-1], strict=True)


def test_it_asks_for_no_right_at_the_api_server() -> None:
    account, _ = documents()
    assert account["automountServiceAccountToken"] is False
    assert pod()["automountServiceAccountToken"] is False
    assert pod()["serviceAccountName"] == account["metadata"]["name"]


def test_the_selector_is_a_part_of_the_pods_labels() -> None:
    spec = daemonset()["spec"]
    assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()


def test_it_runs_on_every_node_and_one_node_after_the_other() -> None:
    assert pod()["tolerations"] == [{"operator": "Exists"}]
    assert pod()["priorityClassName"] == "system-node-critical"
    assert (pod()["hostNetwork"], pod()["dnsPolicy"]) == (True, "Default")
    assert daemonset()["spec"]["updateStrategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}


def test_the_agent_finds_its_folders_where_the_node_has_them() -> None:
    (agent,) = pod()["containers"]
    assert agent["command"] == [AGENT_PATH, "--config", CONFIG_PATH]
    config = AgentConfig(name="a", node_address="192.168.1.1")
    where = mounts(agent)
    hosts = {volume["name"]: volume["hostPath"]["path"] for volume in pod()["volumes"] if "hostPath" in volume}
    for folder in (config.state_directory, str(Path(config.api_socket).parent)):
        assert hosts[where[folder]] == folder, "the plugin looks for it on the node under the same name"
    assert str(Path(CONFIG_PATH).parent) in where


def test_the_init_container_reaches_every_folder_that_it_writes_and_no_other_of_the_node() -> None:
    (install,) = pod(password_secret="s")["initContainers"]
    hosts = {volume["name"]: volume.get("hostPath", {}).get("path") for volume in pod()["volumes"]}
    written = {str(Path(path).parent) for path in (PLUGIN_PATH, CHAIN_PATH, RECORD_PATH, CONFIG_PATH)}
    writable = {mount["mountPath"] for mount in install["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {f"/host{folder}" for folder in written}
    for place, name in mounts(install).items():
        if hosts.get(name):
            assert place == f"/host{hosts[name]}"


def test_probes_ask_the_agent_and_a_waiting_agent_is_not_killed() -> None:
    (agent,) = pod()["containers"]
    listens = AgentConfig(name="a", node_address="192.168.1.1").http_address
    for probe in (agent["readinessProbe"], agent["livenessProbe"]):
        assert f"{probe['httpGet']['host']}:{probe['httpGet']['port']}" == listens
    assert agent["readinessProbe"]["httpGet"]["path"] == "/status"
    assert agent["livenessProbe"]["httpGet"]["path"] != "/status", "503 until it is ready, and it may wait for peers"


def test_what_the_init_container_runs_is_a_command_line_of_ours() -> None:
    (install,) = pod(**ALL)["initContainers"]
    words = [re.sub(r"(?<!\$)\$\((\w+)\)", "192.168.1.10", word) for word in install["command"]]
    assert words[:2] == ["weavelab", "deploy"]
    words[words.index("--root=/host")] = "--root=/"
    words[words.index("--password-file=/secret/password")] = "--password-file=/etc/hostname"
    parsed = deploy_command.make_context("deploy", words[2:]).params
    assert (parsed["only"], parsed["peer"]) == (("plugin", "config"), ("10.0.0.1", "10.0.0.2"))
    assert parsed["pod_range"] == "10.64.0.0/16"
    assert parsed["cluster"] == "a'b\"$$(X)", "Kubernetes takes $$ for one dollar, and would look for a variable X"
    assert str(parsed["interpreter"]) == "/usr/bin/python3.12"
    names = {variable["name"] for variable in install["env"]}
    assert set(re.findall(r"(?<!\$)\$\((\w+)\)", " ".join(install["command"]))) == names


def test_the_password_is_mounted_only_where_it_is_read() -> None:
    spec = pod(password_secret="weave-password")
    assert "/secret" in mounts(spec["initContainers"][0])
    assert "/secret" not in mounts(spec["containers"][0])
    (volume,) = [volume for volume in spec["volumes"] if "secret" in volume]
    assert volume["secret"] == {"secretName": "weave-password", "defaultMode": 0o400}
    assert not any("secret" in volume for volume in pod()["volumes"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"peers": []}, "wanted --peer"),
        ({"peers": ["node1"]}, "--peer: wanted the IPv4 address"),
        ({"image": "Not An Image"}, "--image: wanted the name"),
        ({"password_secret": "No Secret"}, "--password-secret: wanted the name"),
        ({"pod_range": "10.0.0.0"}, "--range: the pod range"),
        ({"pod_range": "192.168.0.0/16"}, "contains the node address 192.168.1.10"),
        ({"cluster": "x" * 64}, "--cluster: wanted 1 to 63"),
    ],
)
def test_wrong_values_are_refused_before_they_reach_a_cluster(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        documents(**options)


def test_the_command_prints_it_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["deploy", "--manifest", "--peer", "192.168.1.10"]) == 0
    printed = capsys.readouterr().out
    (password,) = re.findall(r'stringData: {password: "([0-9a-f]{64})"}', printed)
    assert printed == manifest(peers=["192.168.1.10"], password=password)
    assert cli.main(["deploy", "--manifest", "--peer", "192.168.1.10", "--no-password"]) == 0
    assert capsys.readouterr().out == manifest(peers=["192.168.1.10"])
    assert cli.main(["deploy", "--manifest", "--peer", "192.168.1.10", "--password-secret", "mine"]) == 0
    assert capsys.readouterr().out == manifest(peers=["192.168.1.10"], password_secret="mine")


def test_each_manifest_has_another_password_which_applying_it_again_does_not_change(
    capsys: pytest.CaptureFixture[str],
) -> None:
    secrets = []
    for _ in range(2):
        assert cli.main(["deploy", "--manifest", "--peer", "192.168.1.10"]) == 0
        (secret,) = (
            one for one in YAML(typ="safe").load_all(capsys.readouterr().out) if one["kind"] == "Secret"
        )  # fmt: skip
        secrets.append(secret)
    assert secrets[0]["stringData"] != secrets[1]["stringData"]
    assert secrets[0]["immutable"] is True, "agents with two passwords are two networks"
    spec = pod(password="ab" * 32)
    (volume,) = [volume for volume in spec["volumes"] if "secret" in volume]
    assert volume["secret"]["secretName"] == secrets[0]["metadata"]["name"]


def test_two_words_about_the_password_are_one_too_many() -> None:
    assert cli.main(["deploy", "--manifest", "--peer", "1.2.3.4", "--no-password", "--password-secret", "mine"]) == 2


# ---- the image


def instructions() -> list[tuple[str, str]]:
    """(instruction, its words) of the Containerfile, comments left out and lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Containerfile").read_text(), flags=re.MULTILINE)
    text = re.sub(r"\\\n\s*", " ", text)
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line.strip())]


def commands() -> list[list[str]]:
    """Every command of its RUN instructions."""
    return [
        shlex.split(command) for word, rest in instructions() if word == "RUN" for command in rest.split("&&")
    ]  # fmt: skip


def test_the_containerfile_is_well_formed() -> None:
    words = [word for word, _ in instructions()]
    assert words[0] == "FROM"
    assert set(words) <= {"FROM", "RUN", "COPY", "CMD"}
    base = instructions()[0][1]
    assert re.fullmatch(r"[a-z.]+(/[a-z]+)+:[\w.-]+", base), f"a full name with a tag, found {base}"
    assert not base.endswith(":latest")


def test_what_it_copies_is_there_and_is_all_that_weavelab_needs() -> None:
    copied = set()
    for word, rest in instructions():
        if word == "COPY":
            *sources, target = rest.split()
            assert target.startswith("/opt/weavelab")
            for source in sources:
                assert (ROOT / source).exists(), source
                copied.add(source)
    assert copied >= {"plugin", "testbed", "templates", "pyproject.toml", "README.md", "LICENSE"}


def test_packages_are_installed_without_questions_and_lists_are_not_left() -> None:
    (install,) = [words for words in commands() if words[:2] == ["apt-get", "install"]]
    assert {"--yes", "--no-install-recommends"} <= set(install)
    assert {"python3", "python3-venv", "nftables"} <= set(install)
    assert ["rm", "-rf", "/var/lib/apt/lists/*"] in commands()


def test_its_weavelab_commands_are_ours() -> None:
    ours = [words for words in commands() if words[0] == "weavelab"]
    assert ours
    for words in ours:
        assert words[1] == "deploy"
        command = weavelab.get_command(None, words[1])  # type: ignore[arg-type]
        assert command is not None
        parsed = command.make_context(words[1], words[2:]).params
        assert parsed["local"]
        assert parsed["only"] == ("agent",)


def test_the_image_starts_what_it_has_installed() -> None:
    (cmd,) = [rest for word, rest in instructions() if word == "CMD"]
    assert cmd == f'["{AGENT_PATH}", "--config", "{CONFIG_PATH}"]'


def test_the_images_pythons_version_is_one_that_we_support(tmp_path: Path) -> None:
    """Debian 12 has Python 3.11; another base has to be looked at."""
    assert instructions()[0][1] == "docker.io/library/debian:12-slim"
    assert "Programming Language :: Python :: 3.11" in (ROOT / "pyproject.toml").read_text()
