"""From a YAML file and dotted overrides to a validated config, and back."""

import copy
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from pipeline.config.agents import AGENTS, TrainedConfig
from pipeline.config.sections import Config
from pipeline.starter import shipped

AGENT_CONFIGS = Path("configs/agents")
SHORT = {"judge=human": "evaluate.judges.human={kind: human}"}  # overrides, and what they are short for
_Model = TypeVar("_Model", bound=BaseModel)


class ConfigError(ValueError):
    """A config that can't be used; the message names the field, the value received and the fix."""


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 3e-4 as text; people who write learning rates mean a number. Keys may not repeat."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]  # type: ignore[no-untyped-call]
        for key in keys:
            if keys.count(key) > 1:
                raise ConfigError(f"{key!r} stands twice in one mapping{node.start_mark}")
        return dict(super().construct_mapping(node, deep))


class _Dumper(yaml.SafeDumper):
    """Quotes the texts that _Loader would read as numbers."""


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?$"),
        list("-+0123456789."),
    )


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader: plain data only
    # Tags such as !!int with text that doesn't fit escape from PyYAML as whatever its converters raise.
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{where} is not valid YAML: {error}") from None


def apply_overrides(tree: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return `tree` with each ``dotted.key=value`` set; values are read as YAML.

    Raises:
        ConfigError: an override without '=', or a path through something that is no section.
    """
    tree = copy.deepcopy(tree)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"override {override!r} must look like section.key=value, or name a YAML file")
        *path, last = key.split(".")
        node = tree
        for name in path:
            if node.get(name) is None:
                node[name] = {}
            node = node[name]
            if not isinstance(node, dict):
                raise ConfigError(f"override {override!r}: {name!r} is a value, not a section")
        node[last] = _parse_yaml(value, f"override {override!r}")
    return tree


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Read a YAML config, apply overrides in their order, validate everything.

    Args:
        overrides: each either ``dotted.key=value``, or a YAML file of them, whose sections are laid over what is there:
            mappings key by key, anything else as a whole. The default `run_dir` has the names of all files.
            `judge=human` adds the people who compared the run's answers to its judges.

    Raises:
        ConfigError: with every problem found, one a line, each naming field, value and fix.
    """
    files = [Path(path)]
    tree = _read_config(files[0])
    for override in overrides:
        if is_file(override):
            files.append(Path(override))
            tree = _laid_over(tree, _read_config(files[-1]))
        else:
            tree = apply_overrides(tree, [SHORT.get(override, override)])
    tree["run_dir"] = tree.get("run_dir") or f"runs/{'-'.join(file.stem for file in files)}"
    tree["code_dir"] = tree.get("code_dir") or str(files[0].parent)
    return parse_config(tree, " + ".join(map(str, files)))


def is_file(override: str) -> bool:
    """Whether an override names a file of settings."""
    return "=" not in override and override.endswith((".yaml", ".yml"))


def parse_config(tree: Mapping[str, Any], where: str = "config") -> Config:
    """Validate a mapping. Raises ConfigError with every problem found, one a line."""
    return _validate(Config, tree, where)


def load_agent(algorithm: str, environment: str, overrides: Iterable[str] = ()) -> TrainedConfig:
    """The config of a classic agent: defaults, configs/agents/<algorithm>-<environment>.yaml if there, overrides.

    Raises:
        ConfigError: for an unknown algorithm, or with every problem of the settings, one a line.
    """
    if algorithm not in AGENTS:
        near = difflib.get_close_matches(algorithm, AGENTS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(f"unknown algorithm {algorithm!r}; {hint}known: {', '.join(AGENTS)}")
    path = agent_file(algorithm, environment)
    tree = _read_yaml(path) if path is not None else {}
    tree = apply_overrides({"environment": environment, **tree}, overrides)
    tree["run_dir"] = tree.get("run_dir") or f"runs/{algorithm}-{_in_a_name(environment)}"
    return _validate(AGENTS[algorithm], tree, str(path or f"{algorithm} on {environment}"))


def read_agent(path: Path) -> TrainedConfig:
    """The resolved config that a run folder keeps. Raises ConfigError if it is none of an agent's."""
    tree = _read_yaml(path)
    algorithm = tree.get("algorithm")
    if algorithm not in AGENTS:
        raise ConfigError(f"{path} is no agent's: algorithm is {algorithm!r}, known are {', '.join(AGENTS)}")
    return _validate(AGENTS[algorithm], tree, str(path))


def agent_file(algorithm: str, environment: str) -> Path | None:
    """The tuned settings of a pair, from the working directory's configs/ or the project's; None if there are none."""
    name = AGENT_CONFIGS / f"{algorithm}-{_in_a_name(environment)}.yaml"
    return next((path for path in (name, shipped() / name) if path.is_file()), None)


def _in_a_name(environment: str) -> str:
    """As part of a file's name."""
    return environment.replace("/", "-").replace(":", "-")


def _read_config(path: Path) -> dict[str, Any]:
    """The mapping in a file. Raises ConfigError, with names that are near, if there is no such file."""
    if not path.is_file():
        near = difflib.get_close_matches(str(path), [str(p) for p in Path("configs").rglob("*.yaml")], n=3, cutoff=0.4)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        if not path.is_absolute() and (shipped() / path).is_file():
            hint = "; `align init` copies it here, with its data"
        raise ConfigError(f"no config file at {path}{hint}")
    return _read_yaml(path)


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`below` with what `above` says; two mappings under one key become one, anything else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _laid_over(merged[key], value) if both else value
    return merged


def _read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a file. Raises ConfigError if it can't be read or holds something else."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} can't be read as UTF-8 text: {error}") from None
    tree = _parse_yaml(text, str(path))
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold a mapping, got {type(tree).__name__}")
    return tree


def _validate(model: type[_Model], tree: Mapping[str, Any], where: str) -> _Model:
    """Raises ConfigError with every problem found, one a line."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(problem, model) for problem in error.errors()]
        raise ConfigError(f"{where}:\n" + "\n".join(f"  {line}" for line in lines)) from None


def _explain(problem: Mapping[str, Any], root: type[BaseModel]) -> str:
    """One pydantic error as one sentence: field, value, what is allowed."""
    place = [str(part) for part in problem["loc"]]
    location, _ = _walk(place, root)
    field = ".".join(location)
    if problem["type"] == "extra_forbidden":
        _, section = _walk(place[:-1], root)
        known = list(getattr(section, "model_fields", ()))
        near = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
        return f"{field}: unknown key; {hint}"
    if problem["type"] == "missing":
        return f"{field}: is required and missing"
    if problem["type"] in ("union_tag_not_found", "union_tag_invalid"):
        _, options = _walk(place, root)
        return f"{field}: kind must be one of {', '.join(tag for one in get_args(options) for tag in _tags(one))}"
    message = problem["msg"].removeprefix("Value error, ")
    message = f"{message[0].lower()}{message[1:]}"
    if isinstance(problem["input"], Mapping):  # a whole section: long, and not its every value is at fault
        return f"{field}: {message}" if field else message
    return f"{field}: got {problem['input']!r}; {message}"


def _walk(place: Sequence[str], root: type[BaseModel]) -> tuple[list[str], Any]:
    """A place as the file names it, and the type that stands there (None = nobody knows).

    Where several sections are possible pydantic adds the tag that tells them apart, which the file hasn't got.
    """
    shown: list[str] = []
    node: Any = root
    for name in place:
        if isinstance(node, type) and issubclass(node, BaseModel):
            node = node.model_fields[name].annotation if name in node.model_fields else None
        elif get_origin(node) in (dict, list):
            node = get_args(node)[-1]
        else:
            node = next((one for one in get_args(node) if name in _tags(one)), None)
            if node is not None:
                continue
        shown.append(name)
        if get_origin(node) is Annotated:
            node = get_args(node)[0]
        sections = [one for one in get_args(node) if one is not type(None)]
        if get_origin(node) in (Union, UnionType) and len(sections) == 1:
            (node,) = sections
    return shown, node


def _tags(section: Any) -> tuple[str, ...]:
    """The kinds that a section of a union answers to."""
    kind = getattr(section, "model_fields", {}).get("kind")
    return () if kind is None else get_args(kind.annotation)


def dump_config(config: BaseModel) -> str:
    """The resolved config as YAML, in the order of the declaration."""
    return yaml.dump(config.model_dump(), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
