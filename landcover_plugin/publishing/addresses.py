"""Addresses of registered models: ``models:/NAME/ALIAS``, ``models:/NAME/VERSION``, ``models:/NAME@ALIAS``."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Self

from ..errors import LandcoverError

#: What an address of a registered model begins with.
PREFIX = 'models:/'

#: MLflow keeps these words, and v1, v2, ..., from being aliases.
_RESERVED = re.compile(r'latest|v\d+|\d+', re.IGNORECASE)


@dataclass(frozen=True)
class ModelAddress:
    """A registered model and which of its versions is meant: by its number, or by an alias.

    Examples:
        >>> ModelAddress.parse('models:/catalonia/champion')
        ModelAddress(name='catalonia', version=None, alias='champion')
        >>> str(ModelAddress.parse('models:/catalonia/3')), str(ModelAddress.parse('models:/catalonia@champion'))
        ('models:/catalonia/3', 'models:/catalonia/champion')
    """

    name: str
    version: int | None = None
    alias: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an address.

        Raises:
            LandcoverError: If it names no model or no version.
        """
        found = re.fullmatch(r'models:/([^/@:]+)[/@]([\w-]+)', text)
        if found is None:
            raise LandcoverError(
                f'{text} is no address of a registered model: expected models:/NAME/ALIAS or models:/NAME/VERSION, '
                'such as models:/catalonia/champion'
            )
        name, which = found.groups()
        return cls(name, version=int(which)) if which.isdecimal() else cls(name, alias=which)

    def __str__(self) -> str:
        return f'{PREFIX}{self.name}/{self.version if self.alias is None else self.alias}'


def check_name(name: str) -> str:
    """The name of a model, if a registry can hold it and an address can tell it.

    Raises:
        LandcoverError: If not.

    Examples:
        >>> check_name('catalonia')
        'catalonia'
    """
    if not re.fullmatch(r'[\w .-]*\w[\w .-]*', name):
        raise LandcoverError(f'a model is named by letters, digits, spaces, ".", "-" and "_", got {name!r}')
    return name


def check_alias(alias: str) -> str:
    """The alias of a version, if it cannot be mistaken for a version.

    Raises:
        LandcoverError: If it can, or holds something else than letters, digits, "-" and "_".

    Examples:
        >>> check_alias('champion')
        'champion'
    """
    if not re.fullmatch(r'[\w-]+', alias, re.ASCII) or _RESERVED.fullmatch(alias):
        raise LandcoverError(
            f'an alias is made of letters, digits, "-" and "_", and is no number, no v1 and not latest, got {alias!r}'
        )
    return alias


def check_file_name(name: str) -> str:
    """The name of a file in an exported model, if it lies in its folder.

    Raises:
        LandcoverError: If it leads out of the folder.

    Examples:
        >>> check_file_name('openvino/model.xml')
        'openvino/model.xml'
    """
    path = PurePosixPath(name)
    if path.is_absolute() or '..' in path.parts or '\\' in name or ':' in name or not path.name:
        raise LandcoverError(f'the registered model names {name}, which lies outside its folder: it was tampered with')
    return name
