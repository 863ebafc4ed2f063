"""How a group of options (``where: Target``) becomes the options of a command, and whose each is."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, get_args, get_type_hints

import typer

from m3connect.cli.options import SHARED, Mark
from m3connect.cli.running import running


@dataclass(frozen=True, slots=True)
class Declared:
    """An option of a command.

    Args:
        name: of the parameter.
        owner: the group's class that declares it; None for the command's own.
        marks: what the settings must know.
    """

    name: str
    owner: type | None
    marks: frozenset[Mark]

    @property
    def shared(self) -> bool:
        """Whether the option is one and the same in several commands."""
        return self.owner in SHARED

    @property
    def flag_only(self) -> bool:
        """Whether neither file nor environment may set it."""
        return Mark.FLAG_ONLY in self.marks

    @property
    def secret(self) -> bool:
        """Whether it may hold a password or key."""
        return Mark.SECRET in self.marks

    @property
    def address(self) -> bool:
        """Whether it decides who receives documents and keys."""
        return Mark.ADDRESS in self.marks

    @property
    def service(self) -> bool:
        """Whether its value may be the address of an encoder's or a reranker's service."""
        return Mark.SERVICE in self.marks

    @property
    def writes(self) -> bool:
        """Whether it names a place that is written."""
        return Mark.WRITES in self.marks

    @property
    def decides_target(self) -> bool:
        """Whether it decides target or credentials."""
        return bool(self.marks & {Mark.TARGET, Mark.ADDRESS, Mark.SECRET})


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """The command with its groups written out as keyword parameters, as typer reads them.

    ``(text, *, where: Target)`` becomes ``(text, *, collection, target, url, ...)``.
    """
    signature = _signature(command)
    groups: dict[str, Any] = {
        name: parameter.annotation
        for name, parameter in signature.parameters.items()
        if is_dataclass(parameter.annotation)
    }
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        if parameter.name in groups:
            parameters += _written_out(groups[parameter.name])
        else:
            parameters.append(parameter)

    @functools.wraps(command)
    def call(*args: Any, typer_context: typer.Context, **options: Any) -> None:
        built = {
            name: group(**{field.name: options.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        token = running.set(typer_context)
        try:
            command(*args, **options, **built)
        finally:
            running.reset(token)

    # Not named "context", which is an option of ingest.
    parameters.append(
        inspect.Parameter("typer_context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    )
    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {each.name: each.annotation for each in parameters}
    return call


def _written_out(group: Any) -> Iterator[inspect.Parameter]:
    for field in fields(group):
        yield inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=_hints(group)[field.name],
        )


def declared(command: Callable[..., None]) -> dict[str, Declared]:
    """The options of a command that was not yet expanded, by the names of its parameters."""
    declared: dict[str, Declared] = {}
    for parameter in _signature(command).parameters.values():
        if not is_dataclass(parameter.annotation):
            declared[parameter.name] = Declared(parameter.name, None, _marks(parameter.annotation))
            continue
        group: Any = parameter.annotation
        for field in fields(group):
            owner = _owner(group, field.name)
            declared[field.name] = Declared(field.name, owner, _marks(_hints(group)[field.name]))
    return declared


@functools.cache
def _signature(command: Callable[..., None]) -> inspect.Signature:
    return inspect.signature(command, eval_str=True)


@functools.cache
def _hints(group: Any) -> dict[str, Any]:
    """The annotations of a group, which many commands share: to evaluate them takes time."""
    return get_type_hints(group, include_extras=True)


def _owner(group: type, field: str) -> type:
    return next(each for each in group.__mro__ if field in inspect.get_annotations(each))


def _marks(annotation: Any) -> frozenset[Mark]:
    return frozenset(each for each in get_args(annotation) if isinstance(each, Mark))
