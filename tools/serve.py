"""`make serve`: serves the site and builds what an edit changes.

MkDocs' own `serve` builds all pages at every edit, goes on with the old code of an edited extension, ends
when the first build fails, and answers nothing from a failed build to the next good one. So this calls
MkDocs' builder and MkDocs' server itself.
"""

import logging
import shutil
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort
from mkdocs.livereload import LiveReloadServer

from .unchanged import CODE, ROOT, SOURCES, Unchanged

log = logging.getLogger("mkdocs.serve")


class Preview:
    """Builds the site into a folder of its own each time, and serves the last good one."""

    def __init__(self, host: str, port: int, folder: Path):
        self.folder = folder
        self.shown = folder / "shown"  # a link to the last good build: a request never meets half a site
        self.builds = 0
        self.unchanged = Unchanged()
        self.unchanged.install()
        self.server = LiveReloadServer(self.build, host, port, str(self.shown), polling_interval=0.25)
        self.server.error_handler = self._not_found

    def build(self) -> None:
        """Build the site. If that fails, say why and keep serving what there is."""
        start = time.monotonic()
        self.builds += 1
        site = self.folder / str(self.builds)
        try:
            self.unchanged.begin()
            config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(site), site_url=self.server.url)
            config.plugins.on_startup(command="serve", dirty=False)
            build(config, serve_url=self.server.url)
        except (Exception, SystemExit) as error:  # whatever an edited page, setting or extension can raise
            if not isinstance(error, Abort):  # then MkDocs has said why
                log.error(f"{type(error).__name__}: {error}")
            log.error("Not built; the site shows the last good build until that is mended.")
            shutil.rmtree(site, ignore_errors=True)
            return
        last = self.shown.resolve()
        (self.folder / "next").symlink_to(site)
        (self.folder / "next").replace(self.shown)
        if last != self.shown:
            shutil.rmtree(last, ignore_errors=True)
        pages = self.unchanged.anew
        names = ", ".join(pages) if len(pages) <= 3 else f"{len(pages)} pages"
        log.info(f"Built in {time.monotonic() - start:.1f} s; rendered anew: {names or 'no page'}")

    def serve(self) -> None:
        """Serve until interrupted."""
        self.build()
        for path in (*SOURCES, *CODE):
            self.server.watch(str(path))
        try:
            self.server.serve()
        except KeyboardInterrupt:
            log.info("Shutting down")
        finally:
            self.server.shutdown()

    def _not_found(self, code: int) -> bytes | None:
        page = self.shown / "404.html"
        return page.read_bytes() if page.is_file() else None


def main() -> None:
    """Serve on the address given, or say why that cannot be."""
    address = sys.argv[1]
    host, _, port = address.rpartition(":")
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, int(port)))
    except (OSError, ValueError, OverflowError) as error:
        sys.exit(f"Cannot serve on {address} ({error}); choose another: make serve ADDRESS=127.0.0.1:8001")
    lines = logging.StreamHandler()
    lines.setFormatter(logging.Formatter("%(levelname)-7s %(message)s"))
    logging.getLogger("mkdocs").addHandler(lines)
    logging.getLogger("mkdocs").setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that its folder is removed
    with tempfile.TemporaryDirectory(prefix="mkdocs_") as folder:
        Preview(host, int(port), Path(folder)).serve()


if __name__ == "__main__":
    main()
