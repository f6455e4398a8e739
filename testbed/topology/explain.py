"""Schema violations as sentences: what was wanted, what was found, what was probably meant. All of a file at once.

Second phase of ``testbed.topology.load``, run only for files that the types of ``testbed.topology.model`` refuse:
jsonschema finds every violation where the types stop at the first, but takes longer to import than a good file takes
to load.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import jsonschema

from testbed.nearest import did_you_mean, nearest
from testbed.topology.model import CIDR_PATTERN, IPV4_PATTERN, RATE_PATTERN, SEGMENT_PATTERN, VXLAN_OVERHEAD_BYTES
from testbed.topology.names import NAME_PATTERN
from testbed.topology.step_rules import kinds_sentence
from testbed.topology.steps import KINDS, SCENARIO_PATTERN
from testbed.topology.text import NOUNS, Finding, KeyPath, shown

_TYPES: Final = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "object": "keys with values",
    "array": "a list",
}
_LONGEST: Final = {NAME_PATTERN: 15, SEGMENT_PATTERN: 12, SCENARIO_PATTERN: 40}
_ADDRESSES: Final = {
    CIDR_PATTERN: "an IPv4 range such as 192.168.56.0/24",
    IPV4_PATTERN: "an IPv4 address such as 192.168.56.11",
    RATE_PATTERN: "a rate such as 10mbit (kbit, mbit or gbit a second)",
}
_NOTES: Final[dict[KeyPath, str]] = {
    ("underlay", "mtu"): f"; VXLAN takes {VXLAN_OVERHEAD_BYTES} bytes of it and IPv4 needs 576 for the pods",
}


def explain(data: Any, schema: Mapping[str, Any]) -> list[Finding]:
    """Every violation of the schema, in the order of the file's structure."""
    validator = _STRICT(dict(schema))
    found = (finding for error in validator.iter_errors(data) for finding in _sentences(error, data, schema))
    return list(dict.fromkeys(found))


# ----------------------------------------------------------------------------------------------------- one violation


def _full_match(_validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[Any]:
    # Python's ``$`` also matches before a final newline, which no name may have.
    if isinstance(instance, str) and not re.fullmatch(pattern, instance):
        yield jsonschema.ValidationError("pattern")


_STRICT: Final = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"pattern": _full_match})


def _sentences(error: Any, data: Any, schema: Mapping[str, Any]) -> Iterator[Finding]:
    path: KeyPath = tuple(error.absolute_path)
    value, wanted = error.instance, error.validator_value
    if "propertyNames" in error.absolute_schema_path:
        noun = NOUNS.get(str(path[-1]), "key")
        yield Finding((*path, value), f"{noun} {shown(value)}: a name wants {_text_wanted(wanted, value)}", at_key=True)
    elif error.validator in {"additionalProperties", "required", "oneOf"}:
        if isinstance(value, dict):
            yield from _key_sentences(error, path, schema)
    elif error.validator == "anyOf":
        yield from _any_of(error, data, schema)
    elif error.validator in {"minProperties", "minItems"}:
        yield Finding(path, _too_few(path, wanted, value), at_key=True)
    else:
        yield Finding(
            path, f"{_subject(path, data)}: wanted {_wanted(error)}, found {shown(value)}{_note(path, value)}"
        )


def _key_sentences(error: Any, path: KeyPath, schema: Mapping[str, Any]) -> Iterator[Finding]:
    """Keys that are unknown, missing, or exclude each other."""
    known, value = error.schema["properties"], error.instance
    match error.validator:
        case "additionalProperties":
            for key in value:
                if key not in known:
                    yield Finding((*path, key), _unknown_key(key, path, error.schema, schema), at_key=True)
        case "required":
            unknown = set(value) - set(known)
            for key in error.validator_value:
                # What is there under a misspelt name is reported as an unknown key already.
                if key not in value and not any(nearest(word, known) == key for word in unknown):
                    yield Finding(path, _missing_key(key, path), at_key=True)
        case _:
            present = [kind for kind in KINDS if kind in value]
            # A misspelt kind is reported as an unknown key already.
            if present or not set(value) - set(known):
                yield Finding(path, kinds_sentence(present))


def _wanted(error: Any) -> str:
    schema, wanted = error.schema, error.validator_value
    match error.validator:
        case "type":
            return _TYPES[wanted]
        case "pattern":
            return _text_wanted(wanted, error.instance)
        case "enum":
            return _words(wanted) + did_you_mean(str(error.instance), wanted)
        case "maxLength":
            return f"at most {wanted} characters"
        case _:
            return _number_wanted(schema)


def _number_wanted(schema: Mapping[str, Any]) -> str:
    low, above, high = (schema.get(key) for key in ("minimum", "exclusiveMinimum", "maximum"))
    start = f"{low}" if low is not None else f"more than {above}"
    limits = f"{start} or more" if high is None and low is not None else start
    if high is not None:
        limits = f"{start} to {high}" if low is not None else f"{start} and at most {high}"
    return limits


def _text_wanted(pattern: str, value: str) -> str:
    longest = _LONGEST.get(pattern)
    if longest is None:
        return _ADDRESSES[pattern]
    if len(value) > longest:
        return f"at most {longest} characters, not {len(value)}"
    return "a-z, 0-9 and '-', starting with a letter and not ending with '-'"


def _any_of(error: Any, data: Any, schema: Mapping[str, Any]) -> Iterator[Finding]:
    """The only choice a topology file has: one text, or a list of texts."""
    path = tuple(error.absolute_path)
    if isinstance(error.instance, list):
        for inner in error.context:
            if inner.validator != "type" or inner.absolute_path != error.absolute_path:
                yield from _sentences(inner, data, schema)
        return
    yield Finding(path, f"{_subject(path, data)}: wanted text or a list of texts, found {shown(error.instance)}")


def _unknown_key(key: str, path: KeyPath, part: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    known = list(part["properties"])
    sentence = f"unknown key '{key}' in {_owner(path)}"
    if hint := did_you_mean(key, known):
        return sentence + hint
    if "oneOf" in part:  # a step: the key may have slipped out of its kind by two spaces
        for kind in KINDS:
            if key in schema["$defs"][kind.capitalize()]["properties"]:
                return f"{sentence}; it belongs under the step's kind ({kind}), indented further"
    return f"{sentence}; known keys: {', '.join(known)}"


def _missing_key(key: str, path: KeyPath) -> str:
    if not path and key == "nodes":
        return _NO_NODES
    return f"the key '{key}' is missing in {_owner(path)}"


_NO_NODES: Final = "the topology has no nodes: wanted at least one under 'nodes', such as 'node1:'"


def _too_few(path: KeyPath, wanted: int, value: Any) -> str:
    if path == ("nodes",):
        return _NO_NODES
    if path and path[-1] == "steps":
        return "the scenario has no steps: wanted at least one"
    if path[-1:] == ("segments",) and isinstance(value, list):
        return f"router '{path[-2]}' joins {len(value)} segment{'s' * (len(value) != 1)}: wanted at least {wanted}"
    return f"'{path[-1]}': wanted at least {wanted}, found {shown(value)}"


def _note(path: KeyPath, value: Any) -> str:
    return _NOTES.get(path, "") if isinstance(value, int) else ""


def _owner(path: KeyPath) -> str:
    """Whose key it is: ``node 'node1'``, ``a ping step``, ``underlay``."""
    if not path:
        return "the topology"
    last = path[-1]
    if len(path) > 1 and path[-2] in NOUNS:
        return f"{NOUNS[str(path[-2])]} '{last}'"
    if isinstance(last, int):
        return f"a {str(path[-2]).removesuffix('s')}"
    return f"a step's {last}" if last in KINDS else f"'{last}'"


def _subject(path: KeyPath, data: Any) -> str:
    if not path:
        return "the file" if not isinstance(data, dict) else "the topology"
    last = path[-1]
    if len(path) > 1 and path[-2] in NOUNS and isinstance(last, str):
        return f"{NOUNS[str(path[-2])]} '{last}'"
    return f"'{path[-2]}', item {last + 1}" if isinstance(last, int) else f"'{last}'"


def _words(words: Iterable[str]) -> str:
    *most, last = map(str, words)
    return f"{', '.join(most)} or {last}" if most else last
