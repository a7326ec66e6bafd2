"""Where data is that is not on this machine: `s3://bucket/key`, `hf://datasets/owner/name/path`, `https://host/path`."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Self
from urllib.parse import unquote

from orchestrator.domain.errors import UsageError
from orchestrator.domain.local_path import local_path
from orchestrator.domain.path_patterns import fits
from orchestrator.domain.urls import holds_key, names_key

OBJECT_STORES = ("s3", "gs", "abfs", "abfss", "hf")
WEB = ("https", "http")
_AZURE = frozenset({"abfs", "abfss"})
SCHEMES = (*OBJECT_STORES, *WEB)

_LOCATION = re.compile(rf"({'|'.join(SCHEMES)}):/{{1,2}}(?=[^/])", re.IGNORECASE)  # `Path` turns two slashes into one
_SCHEME = re.compile(rf"({'|'.join(SCHEMES)}):", re.IGNORECASE)
_USER = re.compile(r"//[^/?#]*@")
_SETTING = re.compile(r"[?&]([\w.-]+)=")
_VALUE = re.compile(r"(?<=[?&])([\w.-]+)=[^&#]*")
_MAGIC = re.compile(r"[*?[]")
_HUB = re.compile(r"(?:(?:datasets|spaces|buckets)/)?[^/]+/(?:[^/@]+@refs/\w+/)?[^/]+")  # a revision may be refs/pr/1


class Location(str):
    """The address of an object or of a pattern of objects, as the user gave it. It never holds a key.

    Raises `UsageError` for an address that holds a key or a password: credentials come from the environment.
    """

    __slots__ = ()

    def __new__(cls, given: str | Path) -> Self:
        """Return the location, checked."""
        scheme = _LOCATION.match(str(given))
        if scheme is None:
            raise UsageError(f"{given} is not a location: give one such as s3://bucket/folder/file.jsonl")
        location = super().__new__(cls, f"{scheme[1].lower()}://{str(given)[scheme.end() :]}")
        location._check()
        return location

    @property
    def scheme(self) -> str:
        """The scheme in lower case."""
        return self.partition(":")[0]

    @property
    def rest(self) -> str:
        """What follows the scheme: `bucket/folder/file.jsonl`."""
        return self.partition("://")[2]

    @property
    def bucket(self) -> str:
        """The bucket, the container with its account, the host, or the Hub's repo with its revision."""
        if self.scheme == "hf" and (repo := _HUB.match(self.rest)):
            return repo[0]
        return self.rest.partition("/")[0]

    @property
    def key(self) -> str:
        """The path within the bucket or on the host, without a query."""
        key = self.rest.removeprefix(self.bucket).removeprefix("/")
        return key if self.scheme in OBJECT_STORES else re.split("[?#]", key, maxsplit=1)[0]

    @property
    def name(self) -> str:
        """The last part of the path."""
        name = self.key.rpartition("/")[2]
        return unquote(name) if self.scheme in WEB else name

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """The suffix of the name: `.jsonl`."""
        return PurePosixPath(self.name).suffix

    @property
    def is_pattern(self) -> bool:
        """Whether it contains `*`, `?` or `[`, which only stores that can list their objects understand."""
        return self.scheme not in WEB and _MAGIC.search(self.key) is not None

    @property
    def is_folder(self) -> bool:
        """Whether it stands for all objects whose paths begin with it: its path ends with a slash, or is empty."""
        return self.scheme not in WEB and (self.key.endswith("/") or not self.key)

    def covers(self, other: Location) -> bool:
        """Whether the other location is this one, in this folder, or matches this pattern."""
        if not _in_one_bucket(self, other):
            return False
        if self.is_pattern:
            return fits(tuple(other.key.split("/")), tuple(self.key.split("/")))
        return other.key.startswith(self.key) if self.is_folder else self.key == other.key

    @property
    def folders(self) -> tuple[str, ...]:
        """The parts of the path before the name."""
        return tuple(self.key.split("/")[:-1])

    def with_name(self, name: str) -> Location:
        """Return the location of another object in the same folder."""
        return Location(f"{self.removesuffix(self.key.rpartition('/')[2])}{name}")

    def with_key(self, key: str) -> Location:
        """Return the location of another object in the same bucket, whose key may be any that a store has listed."""
        return str.__new__(Location, f"{self.scheme}://{self.bucket}/{key}")

    def _check(self) -> None:
        user = _USER.search(self)
        if user and (self.scheme in WEB or ":" in user[0] or self.scheme in {"s3", "gs"}):
            raise UsageError(f"{_masked(self)} holds a user or a key, which would be stored: {_REMEDY}")
        if holds_key(self) or any(names_key(name) for name in _SETTING.findall(self)):
            raise UsageError(f"{_masked(self)} holds a key, which would be stored: {_REMEDY}")
        if self.scheme in OBJECT_STORES and (setting := _SETTING.search(self)):
            raise UsageError(
                f"{self} has a setting, {setting[1]}, which a location cannot have: "
                "set the environment variables of the store's own tools instead, such as AWS_REGION or AWS_ENDPOINT_URL"
            )
        if "\0" in self or "\n" in self:
            raise UsageError(f"{str(self)!r} is not a location: remove the control characters")


_REMEDY = "leave it out, and give credentials as the store's own tools expect them (docs/storage.md)"

Target = Path | Location


def _in_one_bucket(one: Location, other: Location) -> bool:
    """Whether both have the same bucket. Azure's may be named in several ways, even without the account."""
    if not _AZURE.issuperset({one.scheme, other.scheme}):
        return (one.scheme, one.bucket) == (other.scheme, other.bucket)
    (container, _, host), (other_container, _, other_host) = one.bucket.partition("@"), other.bucket.partition("@")
    accounts = {name.partition(".")[0] for name in (host, other_host) if name}
    return container == other_container and len(accounts) < 2


def is_location(given: object) -> bool:
    """Whether this is the address of data that is not on this machine, rather than a local path."""
    return _LOCATION.match(str(given)) is not None


def target_of(given: str | Path) -> Target:
    """Return the location, or the local path with `~` expanded. Raises `UsageError` for anything else."""
    if is_location(given):
        return Location(given)
    if unfinished := _SCHEME.match(str(given)):
        raise UsageError(f"{_masked(str(given))} is not a location: write {unfinished[1].lower()}:// and a name")
    return local_path(given)


def _masked(text: str) -> str:
    return _VALUE.sub(r"\1=***", _USER.sub("//***@", text))
