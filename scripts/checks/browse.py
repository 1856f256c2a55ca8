"""Checks that `flowprep browse` serves its page and ends quietly: `browse.py OUT`."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path


def main(out: str) -> None:
    program = Path(sys.executable).with_name("flowprep")
    with subprocess.Popen(
        [program, "browse", out, "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        # A process that a shell started in the background may ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            match = re.fullmatch(r"(http://127\.0\.0\.1:\d+)/\n", line)
            assert match is not None, line
            # No proxy: the page is on this machine.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            page = opener.open(f"{match[1]}/").read().decode()
            files = re.findall(r'(?:src|href)="(/[^"]+\.(?:js|css)[^"]*)"', page)
            for name in files:
                assert opener.open(match[1] + name).read(), name
            assert opener.open(f"{match[1]}/api/videos").status == 200
            process.send_signal(signal.SIGINT)
            assert process.wait() == 0
        finally:
            process.kill()
    print(f"browse served its page, {len(files)} files and the list of videos")


if __name__ == "__main__":
    main(*sys.argv[1:])
