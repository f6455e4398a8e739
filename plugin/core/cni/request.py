"""A CNI call becomes a `CniRequest`, or a `CniError` for the first rule that it breaks.

The executable `weave-net` hands every call to the agent as bytes; the agent calls, in this order:

    request.parse_request(body)                   bytes of POST /cni -> CniRequest
    result.result_json(request, attached)         what ADD prints
    result.check_differences(request, observed)   what CHECK must complain about, as sentences
    CniError.to_json()                            what a failed call prints

Rules come from the CNI specification 1.1.0 and from libcni and skel (github.com/containernetworking/cni), which
runtimes really use. The variables are in environment.py, the keys of a configuration in config.py.
"""

import json
from collections.abc import Mapping
from hashlib import sha256

from plugin.core.cni.config import parse_config
from plugin.core.cni.environment import NAME, check_environment, parse_args, parse_args_leniently
from plugin.core.cni.ipam import delegate_of
from plugin.core.cni.keys import shown, typed_list, typed_value
from plugin.core.cni.result import normalized
from plugin.core.cni.types import (
    BODY_BYTES_MAX,
    DECODING_FAILURE,
    ENVIRONMENT,
    INCOMPATIBLE_VERSION,
    INVALID_CONFIG,
    QUEUE_NAME_BYTES_MAX,
    VERBS,
    VERSIONS,
    CniError,
    CniRequest,
    Json,
    NetworkConfig,
    at_least,
)

# --------------------------------------------------------------------------------------------------
# The life of a CNI call, first half: bytes -> CniRequest


def parse_request(body: bytes) -> CniRequest:
    """Check the body of POST /cni in the order of skel: environment, JSON, name, version, verb, then its keys.

    Args:
        body: The fields of `ENVIRONMENT` and stdin, joined by NUL.

    Raises:
        CniError: The first rule broken. Its `cni_version` is the caller's when that could be read.
    """
    environment, stdin = _split(body)
    command = environment["CNI_COMMAND"]
    check_environment(command, environment)
    raw = _decode_object(stdin)
    network = _network_name(raw)
    version = _version(raw)
    try:
        return _typed_request(command, environment, raw, network, version)
    except CniError as error:
        error.cni_version = version
        raise


def _typed_request(
    command: str, environment: Mapping[str, str], raw: Mapping[str, object], network: str, version: str
) -> CniRequest:
    if not at_least(version, VERBS[command]):
        raise CniError(
            INCOMPATIBLE_VERSION,
            f"config version does not allow {command}",
            f"{command} exists since cniVersion {VERBS[command]}, the configuration says {version}",
        )
    # A DEL, GC or STATUS must not fail over a key that only ADD reads: the conflist may have been edited since.
    strict = command in {"ADD", "CHECK"}
    args = parse_args(environment["CNI_ARGS"]) if strict else parse_args_leniently(environment["CNI_ARGS"])
    previous = raw.get("prevResult")
    if strict and previous is not None and not isinstance(previous, dict):
        raise CniError(DECODING_FAILURE, f"prevResult must be an object, found {shown(previous)}")
    if strict and isinstance(previous, dict):
        normalized(previous)  # refused now rather than when ADD has already made everything
    if command == "CHECK" and not previous:
        raise CniError(
            INVALID_CONFIG, "required prevResult missing", "CHECK compares the attachment with the result of ADD"
        )
    runtime_config = raw.get("runtimeConfig")
    return CniRequest(
        command=command,
        container_id=environment["CNI_CONTAINERID"],
        ifname=environment["CNI_IFNAME"],
        netns=environment["CNI_NETNS"],
        path=environment["CNI_PATH"],
        args=args,
        network=network,
        cni_version=version,
        config=parse_config(raw, args) if strict else NetworkConfig(),
        previous=previous if isinstance(previous, dict) else None,
        valid_attachments=_valid_attachments(raw) if command == "GC" else None,
        runtime_config=runtime_config if isinstance(runtime_config, dict) else {},
        delegate=delegate_of(raw, strict=strict),
    )


def queue_name(network: str, container_id: str, ifname: str) -> str:
    """The file in /var/lib/weave/del-queue that holds a DEL yet to be done; its content is the body of that call.

    The executable chooses the same name (plugin/cni/weave_net.py, `queue_name`). ":" parts the names because none of
    the three may contain one, while "-" may stand in all of them: with "-" two attachments could share a file and one
    DEL would be lost.
    """
    name = f"{network}:{container_id}:{ifname}"
    encoded = name.encode("utf-8", "surrogateescape")
    return name if len(encoded) <= QUEUE_NAME_BYTES_MAX else sha256(encoded).hexdigest()


def _split(body: bytes) -> tuple[dict[str, str], bytes]:
    if len(body) > BODY_BYTES_MAX:
        raise CniError(DECODING_FAILURE, f"the call has {len(body)} bytes, at most {BODY_BYTES_MAX} are accepted")
    fields = body.split(b"\0", len(ENVIRONMENT))
    if len(fields) != len(ENVIRONMENT) + 1:
        raise CniError(
            DECODING_FAILURE,
            f"POST /cni wants {len(ENVIRONMENT)} fields and stdin, parted by NUL; found {len(fields)} parts",
            "the weave-net executable and the agent are of different releases: deploy both again",
        )
    # surrogateescape keeps odd bytes of a path as they are; names are checked below and cannot contain any.
    texts = (value.decode("utf-8", "surrogateescape") for value in fields)
    return dict(zip(ENVIRONMENT, texts, strict=False)), fields[-1]


# --------------------------------------------------------------------------------------------------
# Configuration on stdin


def _decode_object(stdin: bytes) -> Json:
    try:
        # bytes given to json.loads may be UTF-16 or UTF-32; the specification has UTF-8 only
        raw = json.loads(stdin.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise CniError(DECODING_FAILURE, "the configuration on stdin is not valid JSON", str(error)) from error
    if not isinstance(raw, dict):
        raise CniError(DECODING_FAILURE, f"the configuration on stdin must be a JSON object, found {shown(raw)}")
    return raw


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _network_name(raw: Mapping[str, object]) -> str:
    name = raw.get("name")
    if name is None or name == "":
        raise CniError(INVALID_CONFIG, "missing network name", 'the configuration needs a "name"')
    if not isinstance(name, str):
        raise CniError(DECODING_FAILURE, f'"name" must be a string, found {shown(name)}')
    if not NAME.match(name):
        raise CniError(INVALID_CONFIG, "invalid characters found in network name", name)
    return name


def _version(raw: Mapping[str, object]) -> str:
    version = raw.get("cniVersion")
    if version is not None and not isinstance(version, str):
        raise CniError(DECODING_FAILURE, f'"cniVersion" must be a string, found {shown(version)}')
    if not version:
        return VERSIONS[0]  # the version of a configuration that says none, by skel and libcni
    if version not in VERSIONS:
        raise CniError(
            INCOMPATIBLE_VERSION,
            "incompatible CNI versions",
            f'config is "{version}", plugin supports {json.dumps(list(VERSIONS))}',
        )
    return version


def _valid_attachments(raw: Mapping[str, object]) -> frozenset[tuple[str, str]] | None:
    """GC's list. Absent or null is None: "remove what is not in the list" may never be read as "remove all" by mistake.

    libcni sends the key twice, the second time under its legacy name `cni.dev/attachments`; `cnitool gc` sends
    neither.
    """
    value = raw.get("cni.dev/valid-attachments")
    if value is None:
        value = raw.get("cni.dev/attachments")
    if value is None:
        return None
    valid = set()
    for item in typed_list(value, "cni.dev/valid-attachments", dict):
        container_id, ifname = typed_value(item, "containerID", str, ""), typed_value(item, "ifname", str, "")
        if not container_id or not ifname:
            raise CniError(
                INVALID_CONFIG, "each of cni.dev/valid-attachments needs containerID and ifname", shown(item)
            )
        valid.add((container_id, ifname))
    return frozenset(valid)
