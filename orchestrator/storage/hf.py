"""Files on the Hugging Face Hub: `hf://datasets/OWNER/NAME@REVISION/path`, and `hf://buckets/OWNER/NAME/path`."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from urllib.parse import quote

from orchestrator.domain.errors import UsageError
from orchestrator.domain.path_patterns import fits
from orchestrator.storage.failures import changed
from orchestrator.storage.hub import hub_client, hub_package, using_hub
from orchestrator.storage.ranged_file import RangedFile
from orchestrator.storage.store import Stat

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.domain.location import Location

_REPO = re.compile(r"(?:(datasets|spaces|buckets)/)?([^/@]+/[^/@]+)(?:@(.+))?")
_TYPES = {None: "model", "datasets": "dataset", "spaces": "space", "buckets": "bucket"}
_TOTAL = re.compile(r"bytes \d+-\d+/(\d+)")
_MAGIC = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Place:
    """A repo or a bucket. `revision`: what the location names, or else the main branch; a bucket has none."""

    type: str
    id: str
    revision: str

    @classmethod
    def of(cls, location: Location) -> Place:
        """Return the place that the location names."""
        found = _REPO.fullmatch(location.bucket)
        if found is None:
            raise UsageError(
                f"{location} names no repo: write hf://datasets/OWNER/NAME/path, or hf://buckets/OWNER/NAME/path"
            )
        return cls(_TYPES[found[1]], found[2], (found[3] or "main").replace("%2F", "/"))


@dataclass(frozen=True, slots=True)
class Look:
    """What a listing, or a question for a version, has seen: a commit, and the keys that are still due at it."""

    commit: str
    unversioned: set[str]
    unread: set[str]


class Hf:
    """Repos, which are only read, and buckets. The client repeats requests that failed for a transient reason.

    The files of a listing are versioned and read at its commit, and a file whose version was asked for is read at that
    commit, whatever is pushed meanwhile; each of them once, so that later questions see what is new. The client's own
    caches are not used, because they hide changes.
    """

    def __init__(self) -> None:
        self._looks: dict[str, Look] = {}  # by repo and revision

    def stat(self, location: Location) -> Stat | None:
        """Return size and hash of the file; None if there is none."""
        with using_hub(location):
            place, client, look = Place.of(location), hub_client(location), self._looks.get(location.bucket)
            if look is None or location.key not in look.unversioned:
                look = self._looks[location.bucket] = Look(_commit(client, place), set(), {location.key})
            look.unversioned.discard(location.key)
            return _stat(client, location, place, look.commit)

    def open(self, location: Location) -> BinaryIO:
        """Open the file for reading."""
        with using_hub(location):
            place, client, look = Place.of(location), hub_client(location), self._looks.get(location.bucket)
            is_new = look is None or location.key not in look.unread
            commit = _commit(client, place) if look is None or is_new else look.commit
            if look is not None:
                look.unread.discard(location.key)
            stat = _stat(client, location, place, commit)
        if stat is None or stat.size is None:
            raise UsageError(f"{location} does not exist: check the path")
        return cast("BinaryIO", _Reader(location, _url(client, location, place, commit), stat))

    def check_unchanged(self, location: Location, file: BinaryIO) -> None:
        """Compare a bucket's file with the opened one. A repo's file is read at one commit."""
        assert isinstance(file, _Reader)
        if Place.of(location).type == "bucket" and self.stat(location) != file.stat:
            raise changed(location)

    def matches(self, pattern: Location) -> Sequence[Location]:
        """Return the files that match the pattern now, sorted."""
        parts = tuple(pattern.key.split("/"))
        fixed = next((at for at, part in enumerate(parts) if _MAGIC.intersection(part)), len(parts) - 1)
        deep = len(parts) - fixed > 1 or "**" in parts
        with using_hub(pattern):
            place, client = Place.of(pattern), hub_client(pattern)
            commit = _commit(client, place)
            paths = _below(client, pattern, place, commit, "/".join(parts[:fixed]), deep=deep)
            found = sorted(path for path in paths if fits(tuple(path.split("/")), parts))
        self._looks[pattern.bucket] = Look(commit, set(found), set(found))
        return [pattern.with_key(path) for path in found]

    def check_writable(self, location: Location) -> None:
        """Raise `UsageError` if it is not in a bucket, or in one that does not exist."""
        place = Place.of(location)
        if place.type != "bucket":
            raise UsageError(
                f"{location} is in a repo, where each file would be a commit: use HubSink({place.id!r}), which makes "
                "one commit of a whole delivery, or a path in hf://buckets/"
            )
        with using_hub(location, write=True):
            hub_client(location).bucket_info(place.id)

    def put(self, location: Location, file: BinaryIO) -> None:
        """Write the file into the bucket. It is uploaded first, and then becomes visible at once."""
        with NamedTemporaryFile() as named:  # the client uploads nothing but files with names
            shutil.copyfileobj(file, named)
            named.flush()
            self._batch(location, add=[(named.name, location.key)])

    def copy(self, source: Location, target: Location) -> None:
        """Copy a file within the Hub's storage."""
        place = Place.of(source)
        with using_hub(source):
            (found,) = hub_client(source).get_bucket_paths_info(place.id, [source.key])
        self._batch(target, copy=[("bucket", place.id, found.xet_hash, target.key)])

    def delete(self, location: Location) -> None:
        """Delete the file from the bucket, if it is there."""
        if self.stat(location) is not None:
            self._batch(location, delete=[location.key])

    def abort_unfinished(self, locations: Sequence[Location]) -> None:
        """Do nothing: what was uploaded without becoming a file is the Hub's to discard."""

    def _batch(self, location: Location, **changes: Sequence[object]) -> None:
        self.check_writable(location)
        with using_hub(location, write=True):
            hub_client(location).batch_bucket_files(Place.of(location).id, **changes)


def _commit(client: Any, place: Place) -> str:
    """Return the commit of the revision; "" for a bucket, which has none."""
    if place.type == "bucket":
        client.bucket_info(place.id)
        return ""
    commit: str = client.repo_info(place.id, repo_type=place.type, revision=place.revision).sha
    return commit


def _stat(client: Any, location: Location, place: Place, commit: str) -> Stat | None:
    if place.type == "bucket":
        found = list(client.get_bucket_paths_info(place.id, [location.key]))
        return Stat(found[0].size, found[0].xet_hash) if found else None
    entries = client.get_paths_info(place.id, [location.key], repo_type=place.type, revision=commit)
    files = [one for one in entries if hasattr(one, "blob_id")]
    return Stat(files[0].size, files[0].lfs.sha256 if files[0].lfs else files[0].blob_id) if files else None


def _below(client: Any, pattern: Location, place: Place, commit: str, folder: str, *, deep: bool) -> Iterator[str]:
    if place.type == "bucket":
        entries = client.list_bucket_tree(place.id, prefix=folder or None, recursive=deep)
    else:
        at = {"repo_type": place.type, "revision": commit}
        entries = client.list_repo_tree(place.id, folder or None, recursive=deep, **at)
    errors = hub_package(pattern, ".errors")
    try:
        yield from (one.path for one in entries if hasattr(one, "blob_id") or hasattr(one, "xet_hash"))
    except errors.EntryNotFoundError:
        return


def _url(client: Any, location: Location, place: Place, commit: str) -> str:
    if place.type == "bucket":
        return f"{client.endpoint}/buckets/{place.id}/resolve/{quote(location.key)}"
    kind = "" if place.type == "model" else f"{place.type}s/"
    return f"{client.endpoint}/{kind}{place.id}/resolve/{commit}/{quote(location.key)}"


class _Reader(RangedFile):
    """An open file. Each read is one request for that range. No token goes to where the Hub redirects it."""

    def __init__(self, location: Location, url: str, stat: Stat) -> None:
        super().__init__(stat.size or 0)
        self._location = location
        self._url = url
        self.stat = stat

    def _between(self, begin: int, end: int) -> bytes:
        utils = hub_package(self._location, ".utils")
        headers = {**utils.build_hf_headers(), "Range": f"bytes={begin}-{end - 1}", "Accept-Encoding": "identity"}
        with using_hub(self._location):
            answer = utils.http_backoff("GET", self._url, headers=headers, follow_redirects=True)
            utils.hf_raise_for_status(answer)
        data: bytes = answer.content
        total = _TOTAL.fullmatch(answer.headers.get("Content-Range", ""))
        if total is None or int(total[1]) != self._size or len(data) != end - begin:
            raise changed(self._location)
        return data
