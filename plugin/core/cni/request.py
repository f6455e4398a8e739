"""The rules of CNI as the agent applies them: what a call asks for, what may be answered, what a CHECK must notice.

This file decides and never acts: it opens no namespace, touches no link and knows no clock. The executable
`weave-net` hands every call to the agent as bytes; the agent calls, in this order:

    request = parse_request(body)          bytes of POST /cni -> CniRequest, or CniError for the first rule broken
    result_json(request, attached)         what ADD prints
    check_differences(request, observed)   what CHECK must complain about, as sentences
    error.to_json()                        what a failed call prints

Rules come from the CNI specification 1.1.0 and from libcni and skel (github.com/containernetworking/cni), which
runtimes really use. Configuration keys and their defaults are those of Weave Net (plugin/net/cni.go), so that a
conflist written for it works here.
"""

import json
import re
from collections.abc import Mapping
from hashlib import sha256
from ipaddress import IPv4Address
from typing import Final

from plugin.core.cni.capabilities import fitted, parse_bandwidth, parse_port_mappings
from plugin.core.cni.ipam import delegate_of, own_ipam, refuse_ipv6, refuse_outside
from plugin.core.cni.keys import in_any_case, ipv4_address, shown, text_list, typed_list, typed_value
from plugin.core.cni.result import check_differences, check_failed, converted, normalized, result_json
from plugin.core.cni.types import (
    ALREADY_ATTACHED,
    ATTACH_FAILED,
    BODY_BYTES_MAX,
    CHECK_FAILED,
    DECODING_FAILURE,
    DEFAULT_BRIDGE,
    ENVIRONMENT,
    INCOMPATIBLE_VERSION,
    INTERNAL,
    INVALID_CONFIG,
    INVALID_ENVIRONMENT,
    INVALID_NETNS,
    IO_FAILURE,
    IPAM_FAILED,
    KNOWN_ARGS,
    LATEST,
    LIMITED_CONNECTIVITY,
    MTU_BYTES_MAX,
    MTU_BYTES_MIN,
    NEEDS_ATTACHMENT,
    NO_ADDRESS,
    NOT_AVAILABLE,
    PORT_TAKEN,
    QUEUE_NAME_BYTES_MAX,
    TRY_AGAIN_LATER,
    UNKNOWN_CONTAINER,
    UNSUPPORTED_FIELD,
    VERBS,
    VERSIONS,
    AddressRange,
    Attached,
    CniError,
    CniRequest,
    Dns,
    IpamConfig,
    Json,
    NetworkConfig,
    Observed,
    ObservedLink,
    Route,
    at_least,
)

__all__ = [
    "parse_request",
    "result_json",
    "check_differences",
    "check_failed",
    "queue_name",
    "at_least",
    "converted",
    "normalized",
    "ifname_complaint",
    "fitted",
    "CniRequest",
    "NetworkConfig",
    "IpamConfig",
    "AddressRange",
    "Route",
    "Dns",
    "Attached",
    "Observed",
    "ObservedLink",
    "CniError",
    "INCOMPATIBLE_VERSION",
    "UNSUPPORTED_FIELD",
    "UNKNOWN_CONTAINER",
    "INVALID_ENVIRONMENT",
    "IO_FAILURE",
    "DECODING_FAILURE",
    "INVALID_CONFIG",
    "INVALID_NETNS",
    "TRY_AGAIN_LATER",
    "NOT_AVAILABLE",
    "LIMITED_CONNECTIVITY",
    "ALREADY_ATTACHED",
    "NO_ADDRESS",
    "ATTACH_FAILED",
    "CHECK_FAILED",
    "PORT_TAKEN",
    "IPAM_FAILED",
    "INTERNAL",
    "VERSIONS",
    "LATEST",
    "VERBS",
    "ENVIRONMENT",
    "BODY_BYTES_MAX",
    "DEFAULT_BRIDGE",
]


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
    _check_environment(command, environment)
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
    args = _parse_args(environment["CNI_ARGS"]) if strict else _parse_args_leniently(environment["CNI_ARGS"])
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
        config=_network_config(raw, args) if strict else NetworkConfig(),
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


# --------------------------------------------------------------------------------------------------
# Environment

# skel: pkg/utils/utils.go. The first character is a letter or digit, so no name can be an option or a hidden file.
_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*\Z", re.ASCII)
_IFNAME_BYTES_MAX: Final = 15  # IFNAMSIZ less the final NUL


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


def _check_environment(command: str, environment: Mapping[str, str]) -> None:
    """The same table as the executable's, once more at our own border: the socket can be written to by any root
    process.
    """
    if command not in VERBS:
        raise CniError(INVALID_ENVIRONMENT, f"unknown CNI_COMMAND: {command}")
    if command not in NEEDS_ATTACHMENT:
        return
    container_id, ifname = environment["CNI_CONTAINERID"], environment["CNI_IFNAME"]
    missing = [name for name in ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME") if not environment[name]]
    if command == "DEL" and "CNI_NETNS" in missing:
        missing.remove("CNI_NETNS")
    if container_id and not _NAME.match(container_id):
        raise CniError(INVALID_ENVIRONMENT, "invalid characters in containerID", container_id)
    if ifname and (complaint := ifname_complaint(ifname)):
        raise CniError(INVALID_ENVIRONMENT, complaint, ifname)
    if missing:
        raise CniError(INVALID_ENVIRONMENT, f"required env variables [{','.join(missing)}] missing")


def ifname_complaint(ifname: str) -> str:
    """What is wrong with an interface name by the kernel's rules (dev_valid_name in net/core/dev.c), or the empty
    string.
    """
    if not ifname:
        return "interface name is empty"
    if len(ifname.encode("utf-8", "surrogateescape")) > _IFNAME_BYTES_MAX:
        return f"interface name is too long: at most {_IFNAME_BYTES_MAX} bytes"
    if ifname in {".", ".."}:
        return "interface name is . or .."
    if any(character in "/:" or character.isspace() for character in ifname):
        return "interface name contains / or : or whitespace characters"
    if "%" in ifname:
        return "interface name contains %, which the kernel takes for a pattern"
    return ""


def _parse_args(text: str) -> dict[str, str]:
    """CNI_ARGS by the rules of libcni's types/args.go: pairs parted by ";", exactly one "=" each, unknown keys only
    with IgnoreUnknown.
    """
    if not text:
        return {}
    args: dict[str, str] = {}
    for pair in text.split(";"):
        name, _, value = pair.partition("=")
        if pair.count("=") != 1:
            raise CniError(INVALID_ENVIRONMENT, f"CNI_ARGS: invalid pair {pair!r}", "wanted NAME=VALUE;NAME=VALUE")
        args[name] = value
    ignore = args.pop("IgnoreUnknown", "false").lower()
    if ignore not in {"1", "true", "0", "false"}:
        raise CniError(INVALID_ENVIRONMENT, f"CNI_ARGS: IgnoreUnknown must be true, false, 1 or 0, found {ignore!r}")
    unknown = [name for name in args if name not in KNOWN_ARGS]
    if unknown and ignore in {"0", "false"}:
        raise CniError(
            INVALID_ENVIRONMENT,
            f"CNI_ARGS: unknown args {', '.join(unknown)}",
            "add IgnoreUnknown=1, as container runtimes do",
        )
    return args


def _parse_args_leniently(text: str) -> dict[str, str]:
    pairs = (pair.split("=") for pair in text.split(";"))
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


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
    if not _NAME.match(name):
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


def _network_config(raw: Mapping[str, object], args: Mapping[str, str]) -> NetworkConfig:
    _refuse_unsupported(raw)
    bridge = typed_value(raw, "bridge", str, "") or DEFAULT_BRIDGE
    if complaint := ifname_complaint(bridge):
        raise CniError(INVALID_CONFIG, f'"bridge": {complaint}', bridge)
    mtu_bytes = typed_value(raw, "mtu", int, 0)
    if mtu_bytes and not MTU_BYTES_MIN <= mtu_bytes <= MTU_BYTES_MAX:
        raise CniError(INVALID_CONFIG, f'"mtu" must be 0 or {MTU_BYTES_MIN} to {MTU_BYTES_MAX}, found {mtu_bytes}')
    runtime_config = in_any_case(typed_value(raw, "runtimeConfig", dict, {}))
    delegated = delegate_of(raw, strict=True) is not None  # then addresses are the other plugin's, which reads the same
    ipam = IpamConfig() if delegated else own_ipam(typed_value(raw, "ipam", dict, {}), runtime_config)
    requested = () if delegated else _requested_addresses(raw, args, runtime_config)
    refuse_outside(requested, ipam.ranges)
    is_gateway, default_gateway = _truth(raw, "isGateway"), _truth(raw, "isDefaultGateway")
    return NetworkConfig(
        bridge=bridge,
        mtu_bytes=mtu_bytes,
        hairpin=typed_value(raw, "hairpinMode", bool, True),
        ipam=ipam,
        dns=_dns(raw, runtime_config),
        requested_addresses=requested,
        requested_mac=_requested_mac(raw, args, runtime_config),
        ports=parse_port_mappings(runtime_config),
        bandwidth=parse_bandwidth(raw, runtime_config),
        is_gateway=True if default_gateway else is_gateway,  # as in the plugin `bridge`, the one includes the other
        default_gateway=default_gateway,
        masquerade=_truth(raw, "ipMasq"),
    )


def _truth(raw: Mapping[str, object], key: str) -> bool | None:
    return typed_value(raw, key, bool, False) if raw.get(key) is not None else None


_UNSUPPORTED: Final = {
    "vlan": "pods share one flat network",
    "vlanTrunk": "pods share one flat network",
    "macspoofchk": "the switch does not check what pods send",
    "portIsolation": "pods of a node reach each other",
    "promiscMode": "hairpinMode does what it is for",
    "disableContainerInterface": "an address on a link that is down reaches nobody",
}
"""Keys of the reference plugin `bridge` that ask for something nobody does here. Passing them over would be worse."""


def _refuse_unsupported(raw: Mapping[str, object]) -> None:
    """Code 2 is what the specification has for exactly this case."""
    for key, why in _UNSUPPORTED.items():
        if raw.get(key):  # false and 0 ask for nothing
            raise CniError(UNSUPPORTED_FIELD, f'unsupported field "{key}": {shown(raw[key])}', f"{why}; remove the key")


def _dns(raw: Mapping[str, object], runtime_config: Mapping[str, object]) -> Dns:
    """`dns` of the configuration; the runtime's `dns` capability replaces it whole, since it is the pod's own."""
    given = typed_value(runtime_config, "dns", dict, {})
    if given:
        return Dns(
            nameservers=text_list(given, "servers"),
            search=text_list(given, "searches"),
            options=text_list(given, "options"),
        )
    dns = typed_value(raw, "dns", dict, {})
    return Dns(
        nameservers=text_list(dns, "nameservers"),
        domain=typed_value(dns, "domain", str, ""),
        search=text_list(dns, "search"),
        options=text_list(dns, "options"),
    )


def _requested_addresses(
    raw: Mapping[str, object], args: Mapping[str, str], runtime_config: Mapping[str, object]
) -> tuple[IPv4Address, ...]:
    """The addresses a caller asks for. The strongest source wins whole (CONVENTIONS.md): runtimeConfig.ips, then
    args.cni.ips, then `IP=` of CNI_ARGS.

    A prefix may follow the address and is dropped: pods carry the prefix of the whole range.
    """
    by_name = args.get("IP", "")
    sources = (
        text_list(runtime_config, "ips"),
        text_list(_cni_args(raw), "ips"),
        tuple(by_name.split(",")) if by_name else (),
    )
    chosen = next((texts for texts in sources if texts), ())
    for text in chosen:
        refuse_ipv6("requested address", text)
    requested = tuple(ipv4_address(text.partition("/")[0], "requested address") for text in chosen)
    if len(set(requested)) < len(requested):
        raise CniError(INVALID_CONFIG, f"an address is asked for twice: {', '.join(map(str, requested))}")
    return requested


def _requested_mac(raw: Mapping[str, object], args: Mapping[str, str], runtime_config: Mapping[str, object]) -> str:
    sources = (
        typed_value(runtime_config, "mac", str, ""),
        typed_value(_cni_args(raw), "mac", str, ""),
        args.get("MAC", ""),
    )
    mac = next((text for text in sources if text), "").lower()
    if mac and not re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", mac, re.ASCII):
        raise CniError(INVALID_CONFIG, f"a MAC address looks like 0a:58:0a:20:00:05, found {mac!r}")
    if mac and int(mac[:2], 16) & 1:
        raise CniError(INVALID_CONFIG, f"{mac} is a multicast MAC address, which no interface can have")
    return mac


def _cni_args(raw: Mapping[str, object]) -> Mapping[str, object]:
    return typed_value(typed_value(raw, "args", dict, {}), "cni", dict, {})


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
