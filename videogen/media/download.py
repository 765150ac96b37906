"""Input files by path or URL. URLs are http(s) only, with limits on size and time."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit

from videogen.errors import InputError, VideoGenError, brief, nearest, reported_as
from videogen.files import atomic_write
from videogen.media.file_contents import other_content

if TYPE_CHECKING:
    import requests

CHUNK = 1 << 18
AS_IT_IS = {"Accept-Encoding": "identity"}  # a few compressed bytes may be gigabytes
MAX_STALLS = 10  # stall timeouts that a download may take in all


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetcher:
    """Downloader that turns a flag's path or URL into a local file.

    Args:
        folder: where downloads go (the caller removes it).
        timeout: seconds without progress before a download is given up.
        limit: most bytes one download may have.
    """

    folder: Path
    timeout: float = 30.0
    limit: int = 100_000_000

    def local(self, flag: str, source: str) -> Path:
        """Return the path of an existing file, downloaded if ``source`` is a URL.

        Raises:
            InputError: no such file, another kind of URL, a download that stalls, fails or is too large, or
                something that is no picture, sound or video at all: a web page, a Git LFS pointer ...
        """
        path = self._find(flag, source)
        with reported_as(lambda why: InputError(flag, source, f"cannot be read ({why})", "check the file")):
            other = other_content(path)
        if other:
            what, _, fix = other.rpartition("; ")
            raise InputError(flag, source, what, fix)
        return path

    def _find(self, flag: str, source: str) -> Path:
        scheme = source.partition("://")[0].lower() if "://" in source else ""
        if scheme in ("http", "https"):
            return self._download(flag, source)
        if scheme:
            raise InputError(flag, source, "URLs must be http or https", "download it and give the path")
        path = Path(source).expanduser()
        if path.is_file():
            return path
        if path.is_dir():
            raise InputError(flag, source, "is a folder", "give a file")
        if path.exists() or path.is_symlink():
            raise InputError(flag, source, "is not a regular file", "give a file")
        raise InputError(flag, source, "no such file", _suggest(path))

    def _download(self, flag: str, url: str) -> Path:
        import requests  # noqa: PLC0415 - 0.1 s, only for URLs

        from videogen.media.http_session import session_with_deadline  # noqa: PLC0415 - requests

        target = self.folder / f"download-{hashlib.sha256(url.encode()).hexdigest()}"
        if target.exists():  # several jobs may name it
            return target
        with session_with_deadline(MAX_STALLS * self.timeout) as (session, deadline):
            try:
                with (
                    atomic_write(target) as partial,
                    session.get(url, stream=True, timeout=self.timeout, headers=AS_IT_IS) as response,
                    partial.open("wb") as file,
                ):
                    response.raise_for_status()
                    self._receive(flag, url, response, file)
                    if deadline.passed:  # a body of unknown length just ends
                        raise requests.Timeout
            except Exception as error:  # of requests, urllib3, http.client, ssl, and what they let through
                of_disk = isinstance(error, OSError) and not isinstance(error, requests.RequestException)
                if not deadline.passed and (of_disk or isinstance(error, VideoGenError)):
                    raise
                raise self._failure(flag, url, error, late=deadline.passed) from None
        return target

    def _failure(self, flag: str, url: str, error: Exception, *, late: bool) -> InputError:
        import requests  # noqa: PLC0415 - 0.1 s, only for URLs

        if late:
            what = f"did not arrive in {MAX_STALLS * self.timeout:g} s"
            return InputError(flag, url, what, "raise --download_timeout")
        # A stall inside the body surfaces as a connection error.
        if isinstance(error, requests.Timeout) or "timed out" in str(error):
            what = f"stalled for {self.timeout:g} s"
            return InputError(flag, url, what, "raise --download_timeout or give a path")
        if isinstance(error, requests.HTTPError):
            what = f"the server answered {error.response.status_code}"
            return InputError(flag, url, what, "check the URL")
        what = f"could not be downloaded ({type(error).__name__})"
        return InputError(flag, url, what, "check the URL")

    def _receive(self, flag: str, url: str, response: "requests.Response", file: BinaryIO) -> None:
        """Write the body of a response to a file."""
        if (coding := response.headers.get("Content-Encoding", "identity")) != "identity":
            what = f"is sent compressed ({coding}), which was not asked for"
            raise InputError(flag, url, what, "download it and give the path")
        self._check_size(flag, url, int(response.headers.get("Content-Length") or 0))
        size = 0
        for chunk in response.iter_content(CHUNK):
            size += file.write(chunk)
            self._check_size(flag, url, size)
        if size == 0:
            raise InputError(flag, url, "is empty", "check the URL")

    def _check_size(self, flag: str, url: str, size: int) -> None:
        if size > self.limit:
            raise InputError(
                flag, url, f"larger than {self.limit / 1e6:.0f} MB", "download it and give the path"
            )


def sha256_of(path: Path) -> str:
    """Return the digest of an input file, by which it is known."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def display_name(source: str) -> str:
    """Return an input's name for metadata: the path as given if relative, else only its last part."""
    if "://" in source:
        parts = urlsplit(source)
        return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"  # no user names, passwords or queries
    path = Path(source)
    private = path.is_absolute() or source.startswith("~") or ".." in path.parts
    return path.name if private else source


def _suggest(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"there is no folder {brief(folder)}"
    close = nearest(path.name, (entry.name for entry in folder.iterdir()))
    return f"nearest {folder / close}" if close else "check the path"
