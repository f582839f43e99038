"""Chromium for tests, driven over a pipe by the DevTools protocol."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

PROGRAM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), "")


class Browser:
    """A browser without a window; one start serves many pages."""

    def __init__(self, profile: Path) -> None:
        theirs, self.write = os.pipe()
        self.read, answers = os.pipe()
        words = [PROGRAM, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
                 f"--user-data-dir={profile}", "about:blank"]  # fmt: skip
        # Chromium listens on descriptor 3 and answers on 4
        shell = ["bash", "-c", f'exec "$@" 3<&{theirs} 4>&{answers}', "bash", *words]
        self.process = subprocess.Popen(shell, pass_fds=(theirs, answers), stderr=subprocess.DEVNULL)
        os.close(theirs), os.close(answers)
        self.known, self.session, self.rest = 0, {}, b""
        self.events: list[dict[str, Any]] = []
        page = next(t for t in self._do("Target.getTargets")["targetInfos"] if t["type"] == "page")
        attached = self._do("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self.session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log"):
            self._do(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.read), os.close(self.write)

    def open(self, page: Path, width: int = 1200, *, dark: bool = False, media: str = "screen") -> list[str]:
        """Show a file in a window of this width, or as printed, and return what the console complains about."""
        self._do("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._do("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.events.clear()
        self._do("Page.navigate", url=page.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        kinds = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        return [json.dumps(event["params"]) for event in self.events if event["method"] in kinds]

    def run(self, script: str) -> Any:
        """Run a script in the page, and return its value."""
        done = self._do("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def _do(self, method: str, **parameters: Any) -> Any:
        self.known += 1
        order = {"id": self.known, "method": method, "params": parameters, **self.session}
        os.write(self.write, json.dumps(order).encode() + b"\0")
        while (answer := self._next()).get("id") != self.known:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            part = os.read(self.read, 1 << 20)
            assert part, "the browser is gone"
            self.rest += part
        answer, _, self.rest = self.rest.partition(b"\0")
        return json.loads(answer)
