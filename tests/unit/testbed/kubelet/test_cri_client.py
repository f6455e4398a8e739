"""The CRI client against a gRPC server in this process, which answers as a runtime does and records what it is asked."""

import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

from testbed.kubelet.cri import cri_pb2 as pb
from testbed.kubelet.cri.client import CriError, RuntimeClient
from testbed.kubelet.cri.values import PortMapping, SandboxConfig
from tests.support.project import ROOT

CONFIG = SandboxConfig(
    name="web",
    uid="uid-1",
    cgroup_parent="/lab",
    log_directory="/var/log/pods/web",
    ports=(PortMapping(8080, 80), PortMapping(53, 5353, "udp", "127.0.0.1")),
    labels={"io.kubernetes.pod.name": "web"},
)


class FakeRuntime:
    """A server of both services; `answers` by method: a message, or a function of (request, context)."""

    def __init__(self, socket: Path) -> None:
        self.requests: list[tuple[str, Any]] = []
        self.time_left_s: dict[str, float] = {}
        self.answers: dict[str, Any] = {}
        self.server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
        self.server.add_generic_rpc_handlers((self._handler(),))
        self.server.add_insecure_port(f"unix:{socket}")
        self.server.start()

    def _handler(self) -> grpc.GenericRpcHandler:
        class Handler(grpc.GenericRpcHandler):
            def service(_, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:  # noqa: N805
                _empty, service, method = details.method.split("/")
                if method not in self.answers:
                    return None
                declared = pb.DESCRIPTOR.services_by_name[service.rpartition(".")[2]].methods_by_name[method]
                return grpc.unary_unary_rpc_method_handler(
                    lambda request, context: self._answer(method, request, context),
                    request_deserializer=getattr(pb, declared.input_type.name).FromString,
                    response_serializer=lambda message: message.SerializeToString(),
                )

        return Handler()

    def _answer(self, method: str, request: Any, context: grpc.ServicerContext) -> Any:
        self.requests.append((method, request))
        self.time_left_s[method] = context.time_remaining()
        answer = self.answers[method]
        return answer(request, context) if callable(answer) and not isinstance(answer, type) else answer


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "cri.sock"


@pytest.fixture
def runtime(socket: Path) -> Iterator[FakeRuntime]:
    fake = FakeRuntime(socket)
    yield fake
    fake.server.stop(grace=None).wait()


@pytest.fixture
def client(socket: Path) -> Iterator[RuntimeClient]:
    with RuntimeClient(socket, node="node1") as made:
        yield made


def refuse(code: grpc.StatusCode, details: str) -> Callable[[Any, grpc.ServicerContext], None]:
    return lambda _request, context: context.abort(code, details)


def test_a_sandbox_is_asked_for_with_everything_a_kubelet_says(runtime: FakeRuntime, client: RuntimeClient) -> None:
    runtime.answers["RunPodSandbox"] = pb.RunPodSandboxResponse(pod_sandbox_id="abc")
    assert client.run_sandbox(CONFIG) == "abc"
    [(_, request)] = runtime.requests
    config = request.config
    assert (config.metadata.name, config.metadata.uid, config.metadata.namespace) == ("web", "uid-1", "default")
    assert (config.hostname, config.log_directory) == ("web", "/var/log/pods/web")
    assert dict(config.labels) == {"io.kubernetes.pod.name": "web"}
    assert config.linux.cgroup_parent == "/lab"
    assert config.linux.security_context.namespace_options.pid == pb.CONTAINER
    assert [(port.protocol, port.host_port, port.container_port, port.host_ip) for port in config.port_mappings] == [
        (pb.TCP, 8080, 80, ""),
        (pb.UDP, 53, 5353, "127.0.0.1"),
    ]


def test_a_container_joins_its_sandbox_and_logs_into_its_folder(runtime: FakeRuntime, client: RuntimeClient) -> None:
    runtime.answers["CreateContainer"] = pb.CreateContainerResponse(container_id="c1")
    assert client.create_container("abc", CONFIG, name="main", image="img:1", command=["sleep", "9"], attempt=2) == "c1"
    [(_, request)] = runtime.requests
    assert request.pod_sandbox_id == "abc"
    assert request.sandbox_config.metadata.uid == "uid-1"
    container = request.config
    assert (container.metadata.name, container.metadata.attempt) == ("main", 2)
    assert (container.image.image, list(container.command), container.log_path) == (
        "img:1",
        ["sleep", "9"],
        "main/2.log",
    )


def test_statuses_become_plain_values(runtime: FakeRuntime, client: RuntimeClient) -> None:
    runtime.answers["PodSandboxStatus"] = pb.PodSandboxStatusResponse(
        status=pb.PodSandboxStatus(
            id="abc",
            metadata=pb.PodSandboxMetadata(uid="uid-1"),
            state=pb.SANDBOX_READY,
            network=pb.PodSandboxNetworkStatus(ip="10.32.0.2"),
        ),
        info={"info": '{"pid": 77}'},
    )
    runtime.answers["ContainerStatus"] = pb.ContainerStatusResponse(
        status=pb.ContainerStatus(id="c1", state=pb.CONTAINER_EXITED, exit_code=3, reason="Error"),
        info={"info": "no JSON"},
    )
    sandbox = client.sandbox_status("abc")
    assert (sandbox.ready, sandbox.uid, sandbox.address, sandbox.pid) == (True, "uid-1", "10.32.0.2", 77)
    container = client.container_status("c1")
    assert (container.state, container.exit_code, container.reason, container.pid) == ("exited", 3, "Error", 0)


def test_lists_are_filtered_by_the_runtime(runtime: FakeRuntime, client: RuntimeClient) -> None:
    runtime.answers["ListPodSandbox"] = pb.ListPodSandboxResponse(
        items=[pb.PodSandbox(id="abc", metadata=pb.PodSandboxMetadata(name="web", namespace="default"))]
    )
    runtime.answers["ListContainers"] = pb.ListContainersResponse(
        containers=[
            pb.Container(
                id="c1",
                pod_sandbox_id="abc",
                metadata=pb.ContainerMetadata(name="main", attempt=1),
                state=pb.CONTAINER_RUNNING,
            )
        ]
    )
    [sandbox] = client.list_sandboxes({"a": "b"})
    [container] = client.list_containers("abc")
    assert (sandbox.name, sandbox.ready) == ("web", True)
    assert (container.sandbox, container.attempt, container.state) == ("abc", 1, "running")
    assert dict(runtime.requests[0][1].filter.label_selector) == {"a": "b"}
    assert runtime.requests[1][1].filter.pod_sandbox_id == "abc"


def test_what_a_command_printed_comes_back_with_its_exit_code(runtime: FakeRuntime, client: RuntimeClient) -> None:
    runtime.answers["ExecSync"] = pb.ExecSyncResponse(stdout=b"out\xff", stderr=b"err", exit_code=4)
    done = client.exec_sync("c1", ["ls", "/"], timeout_s=0.2)
    assert (done.exit_code, done.stdout, done.stderr) == (4, "out�", "err")
    assert runtime.requests[0][1].timeout == 1, "0 would let it run for ever"


def test_a_command_that_takes_too_long_is_told_from_other_failures(runtime: FakeRuntime, client: RuntimeClient) -> None:
    runtime.answers["ExecSync"] = refuse(grpc.StatusCode.DEADLINE_EXCEEDED, "timeout 3s exceeded")
    with pytest.raises(CriError, match="the command sleep in container c1 did not end within 3 s") as caught:
        client.exec_sync("c1", ["sleep", "9"], timeout_s=3)
    assert caught.value.code == "DEADLINE_EXCEEDED"
    runtime.answers["ExecSync"] = refuse(grpc.StatusCode.UNKNOWN, 'exec: "nosuch": executable file not found')
    with pytest.raises(CriError, match=r"ExecSync: the runtime of node1 says: .*nosuch.* \(UNKNOWN\)"):
        client.exec_sync("c1", ["nosuch"], timeout_s=3)


def test_ready_means_that_every_condition_holds(runtime: FakeRuntime, client: RuntimeClient) -> None:
    ready = pb.RuntimeCondition(type="RuntimeReady", status=True)
    network = pb.RuntimeCondition(type="NetworkReady", status=False, message="cni plugin not initialized")
    runtime.answers["Status"] = pb.StatusResponse(status=pb.RuntimeStatus(conditions=[ready, network]))
    assert client.not_ready() == "NetworkReady: cni plugin not initialized"
    runtime.answers["Status"] = pb.StatusResponse(status=pb.RuntimeStatus(conditions=[ready]))
    assert client.not_ready() == ""
    runtime.answers["Status"] = pb.StatusResponse()
    assert client.not_ready()


def test_the_other_calls_name_what_they_mean(runtime: FakeRuntime, client: RuntimeClient) -> None:
    runtime.answers |= {
        "Version": pb.VersionResponse(runtime_name="containerd", runtime_version="1.6.20"),
        "ImageStatus": pb.ImageStatusResponse(image=pb.Image(id="sha256:1")),
        "StopPodSandbox": pb.StopPodSandboxResponse(),
        "RemovePodSandbox": pb.RemovePodSandboxResponse(),
        "StartContainer": pb.StartContainerResponse(),
        "StopContainer": pb.StopContainerResponse(),
        "RemoveContainer": pb.RemoveContainerResponse(),
    }
    assert client.version() == "containerd 1.6.20"
    assert client.has_image("img:1")
    client.stop_sandbox("abc")
    client.remove_sandbox("abc")
    client.start_container("c1")
    client.stop_container("c1", grace_s=5)
    client.remove_container("c1")
    asked = [
        (method, getattr(request, "pod_sandbox_id", "") or getattr(request, "container_id", ""))
        for method, request in runtime.requests
    ]
    assert asked[2:] == [
        ("StopPodSandbox", "abc"),
        ("RemovePodSandbox", "abc"),
        ("StartContainer", "c1"),
        ("StopContainer", "c1"),
        ("RemoveContainer", "c1"),
    ]
    assert runtime.requests[5][1].timeout == 5


def test_every_call_has_a_deadline_that_the_runtime_is_told(runtime: FakeRuntime, client: RuntimeClient) -> None:
    runtime.answers["RunPodSandbox"] = pb.RunPodSandboxResponse(pod_sandbox_id="abc")
    runtime.answers["StartContainer"] = pb.StartContainerResponse()
    client.run_sandbox(CONFIG)
    client.start_container("c1", timeout_s=7)
    assert 30 < runtime.time_left_s["RunPodSandbox"] < 121
    assert 0 < runtime.time_left_s["StartContainer"] < 8


def test_a_runtime_that_hangs_is_given_up(runtime: FakeRuntime, client: RuntimeClient) -> None:
    def hang(_request: object, context: grpc.ServicerContext) -> pb.VersionResponse:
        while context.is_active():
            time.sleep(0.01)
        return pb.VersionResponse()

    runtime.answers["Version"] = hang
    with pytest.raises(CriError, match=r"Version: the runtime of node1 did not finish within 0.3 s") as caught:
        client.version(timeout_s=0.3)
    assert caught.value.code == "DEADLINE_EXCEEDED"


def test_a_failed_add_comes_with_the_plugins_own_words(runtime: FakeRuntime, client: RuntimeClient) -> None:
    said = 'failed to setup network for sandbox "abc": plugin type="weave-net" failed (add): no address is free'
    runtime.answers["RunPodSandbox"] = refuse(grpc.StatusCode.UNKNOWN, said)
    with pytest.raises(CriError, match=r"RunPodSandbox: the runtime of node1 says: .*no address is free") as caught:
        client.run_sandbox(CONFIG)
    assert (caught.value.exit_code, caught.value.code) == (1, "UNKNOWN")


def test_an_absent_runtime_is_named_with_its_socket(socket: Path, client: RuntimeClient) -> None:
    with pytest.raises(CriError, match=f"Version: the runtime of node1 does not answer at {socket}") as caught:
        client.version(timeout_s=5)
    assert caught.value.code == "UNAVAILABLE"
    assert caught.value.hint


def test_a_runtime_of_another_generation_is_named(runtime: FakeRuntime, client: RuntimeClient) -> None:
    with pytest.raises(CriError, match="does not speak CRI v1") as caught:
        client.version(timeout_s=5)
    assert "containerd 1.6" in caught.value.hint
    assert runtime.requests == []


def test_a_call_after_the_end_is_an_error_of_ours(runtime: FakeRuntime, client: RuntimeClient) -> None:
    runtime.answers["Version"] = pb.VersionResponse()
    client.close()
    with pytest.raises(CriError, match="was closed"):
        client.version()


def test_the_generated_messages_are_those_of_the_proto_file(tmp_path: Path) -> None:
    protoc = pytest.importorskip("grpc_tools.protoc", reason="grpcio-tools is not installed (make setup)")
    project = ROOT
    code = protoc.main(
        ["", f"-I{project}", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", "testbed/kubelet/cri/cri.proto"]
    )
    assert code == 0
    for name in ("cri_pb2.py", "cri_pb2.pyi"):
        made = (tmp_path / "testbed/kubelet/cri" / name).read_text()
        assert made == (project / "testbed/kubelet/cri" / name).read_text(), "run `make proto`"
