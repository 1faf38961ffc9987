"""Downloads with checksum, cache and progress, through pooch."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

from gibbsian.errors import DataError


def fetch(url: str, md5: str, folder: str) -> Path:
    """The file at ``url``, from the user's cache if it is there and intact, else downloaded.

    Parameters
    ----------
    url : where the file is.
    md5 : its published checksum; a cached file that differs is fetched again.
    folder : subfolder of the cache (``gibbsian`` in the user's cache folder).

    Raises
    ------
    DataError
        If the download fails or the checksum differs; the sentence says how to do without network.
    """
    import pooch
    import requests

    name = url.rsplit("/", 1)[1]
    pooch.get_logger().setLevel("WARNING")
    try:
        with _Bar(f"{folder}/{name}") as bar:
            # pooch accepts any object with total, update, reset and close in place of tqdm's bar.
            get: Any = pooch.HTTPDownloader(progressbar=bar, timeout=30)  # pyright: ignore
            path = pooch.retrieve(
                url, f"md5:{md5}", name, pooch.os_cache("gibbsian") / folder, downloader=get
            )
    except requests.exceptions.RequestException as error:
        raise DataError(
            f"{url} can't be downloaded ({type(error).__name__}): go online, or put the file in a "
            f"folder and name that with GIBBSIAN_DATA or --data-dir."
        ) from error
    except ValueError as error:
        raise DataError(
            f"{url} arrived with another checksum than the published {md5}: try again, or put the "
            "file in a folder and name that with GIBBSIAN_DATA or --data-dir."
        ) from error
    except OSError as error:
        raise DataError(
            f"{url} can't be kept in {pooch.os_cache('gibbsian')} ({error.strerror}): free that "
            "folder, or name one that holds the file with GIBBSIAN_DATA or --data-dir."
        ) from error
    return Path(path)


class _Bar:
    """A progress bar with the four members that pooch uses, shown only when bytes arrive."""

    def __init__(self, label: str) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self._progress = Progress(console=Console(stderr=True))
        self._task = self._progress.add_task(label, total=None)
        self._size = 0

    def __enter__(self) -> _Bar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    @property
    def total(self) -> int:
        """Bytes expected."""
        return self._size

    @total.setter
    def total(self, size: int) -> None:
        self._size = size
        self._progress.start()
        self._progress.update(self._task, total=size or None)

    def update(self, size: int) -> None:
        """Count ``size`` more bytes."""
        self._progress.advance(self._task, size)

    def reset(self) -> None:
        """Back to no byte."""
        self._progress.update(self._task, completed=0)

    def close(self) -> None:
        """The download is over."""
        self._progress.stop()
