"""Documents that users write, YAML 1.2 or JSON: read without trust, checked by a model, every error with its line."""

from __future__ import annotations

import difflib
import itertools
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import ruamel.yaml
from pydantic import BaseModel, ValidationError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from daf_common.errors import InvalidArgument, Violation

type Scalar = bool | int | float | str
type Data = Scalar | list[Data] | dict[str, Data] | None

MAX_BYTES = 1 << 20
MAX_VALUES = 100_000
"""Values in a document with its aliases written out: a few lines of aliases can stand for billions."""
MAX_DEPTH = 50
MAX_BRACKETS = 500
"""Open brackets at a time, strings and comments included: the parser's time grows with their square."""

_PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "map", "seq"))
_DATE_TAG = "tag:yaml.org,2002:timestamp"  # given without a tag it is only a text that looks like a date


class DocumentError(InvalidArgument):
    """A document that cannot be used. The message has one line for each problem: file, line, field, what to do."""


@dataclass
class Document:
    """The plain data of a file, and the line (from 1) at which each value stands, by its path."""

    name: str
    data: dict[str, Data]
    lines: dict[tuple[str | int, ...], int] = field(default_factory=dict)

    def check[M: BaseModel](self, model: type[M]) -> M:
        """The data as a model.

        Raises:
            DocumentError: it does not fit; names all problems.
        """
        try:
            return model.model_validate(self.data)
        except ValidationError as error:
            problems = list(self._problems(model, error))
            raise DocumentError("\n".join(problem.message for problem in problems), violations=problems) from None

    def _problems(self, model: type[BaseModel], error: ValidationError) -> Iterator[Violation]:
        for problem in error.errors(include_url=False):
            location = self._known(problem["loc"], keep_last=problem["type"] == "missing")
            line = next(self.lines[location[:n]] for n in range(len(location), -1, -1) if location[:n] in self.lines)
            yield Violation(dotted(location), f"{self.name}:{line}: {_sentence(model, location, problem)}")

    def _known(self, location: tuple[str | int, ...], keep_last: bool) -> tuple[str | int, ...]:
        """The location without what pydantic adds to it and the document does not have: the members of unions."""
        found: tuple[str | int, ...] = ()
        for part in location:
            if (*found, part) in self.lines:
                found = (*found, part)
        return (*found, location[-1]) if keep_last else found


def load[M: BaseModel](path: str | Path, model: type[M]) -> M:
    """Reads a file as a model. JSON is read like YAML, of which it is a part.

    Raises:
        FileNotFoundError: there is no such file.
        DocumentError: it cannot be used.
    """
    return read(path).check(model)


def read(path: str | Path) -> Document:
    """Reads a file, whose document has to be a mapping.

    Raises:
        FileNotFoundError: there is no such file.
        DocumentError: it is not a mapping in YAML or JSON.
    """
    path = Path(path)
    with path.open("rb") as file:
        raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise DocumentError(f"{path}: has more than the {MAX_BYTES} bytes that a document may have")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DocumentError(
            f"{path}:{line}: byte 0x{raw[error.start]:02x} is not UTF-8: save the file as UTF-8"
        ) from None
    if path.suffix == ".json":
        text = text.replace("\t", " ")  # YAML does not indent by tabs; inside of JSON's strings there are none
    return parse(text, str(path))


def parse(text: str, name: str) -> Document:
    """Parses a document, whose name is used in errors.

    Raises:
        DocumentError: it is not a mapping in YAML.
    """
    opened = (1 if char in "[{" else -1 for char in text if char in "[]{}")
    if max(itertools.accumulate(opened), default=0) > MAX_BRACKETS:
        raise DocumentError(f"{name}: is nested too deeply")
    yaml = _yaml()
    try:
        root: Node | None = yaml.compose(text)
        if root is None:
            raise DocumentError(f"{name}:1: the document is empty")
        if not isinstance(root, MappingNode):
            raise _error(name, root, f"the document is {_kind(root)}: it has to be a mapping of keys to values")
        reader = _Reader(name, yaml)
        data = typing.cast(dict[str, Data], reader.value(root, ()))
        return Document(name, data, reader.lines)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        problem = str(error.problem or error.context)
        if problem.startswith("but "):
            problem = f"{error.context}, {problem}"
        raise DocumentError(f"{name}:{line}: {' '.join(problem.split())}") from None
    except YAMLError as error:
        raise DocumentError(f"{name}: {' '.join(str(error).split())[:300]}") from None
    except RecursionError:
        raise DocumentError(f"{name}: is nested too deeply") from None


def scalar(text: str) -> Scalar:
    """The value that a text on a command line stands for, by the rules of YAML: `3e-4` is a number, `true` a flag."""
    try:
        data = parse(f"value: {text}", "the value").data["value"]
    except DocumentError:
        return text
    return text if data is None or isinstance(data, list | dict) else data


def dotted(location: Sequence[str | int]) -> str:
    """A path as people write it: `missions[0].cogs`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".")


def nearest(name: str, known: Sequence[str]) -> str:
    """A hint at the known name that is most like this one, or nothing."""
    near = difflib.get_close_matches(name[:100].lower(), known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def _yaml() -> ruamel.yaml.YAML:
    return ruamel.yaml.YAML(typ="safe", pure=True)


class _Reader:
    """Turns nodes into plain data, noting lines."""

    def __init__(self, name: str, yaml: ruamel.yaml.YAML) -> None:
        self._name, self._yaml, self._count = name, yaml, 0
        self.lines: dict[tuple[str | int, ...], int] = {}

    def value(self, node: Node, path: tuple[str | int, ...]) -> Data:
        self._count += 1
        if self._count > MAX_VALUES or len(path) > MAX_DEPTH:
            raise _error(self._name, node, "with its aliases written out the document is too large")
        self.lines[path] = node.start_mark.line + 1
        match node:
            case ScalarNode() if node.tag == _DATE_TAG and not getattr(node, "style", None):
                return str(node.value)
            case _ if node.tag not in _PLAIN_TAGS:
                raise _error(self._name, node, f"the tag {node.tag} is not allowed: documents hold plain values only")
            case MappingNode():
                return self._mapping(node, path)
            case SequenceNode():
                return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
            case _:
                return self._scalar(node)

    def _mapping(self, node: MappingNode, path: tuple[str | int, ...]) -> Data:
        found: dict[str, Data] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                raise _error(self._name, key_node, f"{_kind(key_node)} cannot be a key")
            key = str(key_node.value)
            if key in found:
                first = self.lines[(*path, key)]
                raise _error(self._name, key_node, f"the key {key!r} is there twice, first on line {first}")
            found[key] = self.value(value_node, (*path, key))
            self.lines[(*path, key)] = key_node.start_mark.line + 1
        return found

    def _scalar(self, node: Node) -> Data:
        try:
            return typing.cast(Data, self._yaml.constructor.construct_object(node))
        except (ValueError, OverflowError):
            raise _error(self._name, node, f"{str(node.value)[:50]!r} cannot be read") from None


def _error(name: str, node: Node, message: str) -> DocumentError:
    return DocumentError(f"{name}:{node.start_mark.line + 1}: {message}")


def _kind(node: Node) -> str:
    if isinstance(node, MappingNode):
        return "a mapping"
    return "a list" if isinstance(node, SequenceNode) else "a single value"


def _sentence(model: type[BaseModel], location: tuple[str | int, ...], problem: Mapping[str, typing.Any]) -> str:
    where = dotted(location)
    match problem["type"]:
        case "missing":
            return f"{where} is missing"
        case "extra_forbidden":
            known = _keys(model, location[:-1])
            key = str(location[-1])
            return f"unknown key {where!r}{nearest(key, known) or f' (known: {", ".join(known)})'}"
    message = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    message = (message[:1].lower() + message[1:]).partition(" after validation")[0]
    value = problem["input"]
    shown = f", not {value!r}" if isinstance(value, Scalar.__value__) and len(str(value)) <= 80 else ""
    shown = "" if problem["type"] == "value_error" else shown
    return f"{where}: {message}{shown}" if where else message


def _keys(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    """The keys that the model at a place in a document has; those of all models that can stand there."""
    models = [model]
    for part in location:
        fields = [owner.model_fields[part] for owner in models if isinstance(part, str) and part in owner.model_fields]
        models = [inner for found in fields for inner in _models(found.annotation)] or models
    return [found.alias or name for owner in models for name, found in owner.model_fields.items()]


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    if isinstance(annotation, typing.TypeAliasType):
        yield from _models(annotation.__value__)
    for argument in typing.get_args(annotation):
        yield from _models(argument)
