"""Looks at the page of `serve` as a person does, in headless Chromium: what is seen, not what is in the source.

    python3 scripts/check_page.py --program target/release/examples/serve --model runs/nested --out runs/page

The model is an artefact with named plans, a front and a cascade (`dynamic_inference --pack`). Needs Python and Chromium
(Debian: chromium); without Chromium it says so and ends with 0. Screenshots go to `--out`. Ends with 1 at the first thing
that is not as it should be.
"""

import argparse
import base64
import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class Browser:
    """Chromium by its debugging pipe: JSON with a zero behind it, on file descriptors 3 and 4."""

    def __init__(self, program, profile):
        ends = []
        for end in (*os.pipe(), *os.pipe()):
            ends.append(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 50))
            os.close(end)
        theirs_in, self.out, self.into, theirs_out = ends
        os.dup2(theirs_in, 3)
        os.dup2(theirs_out, 4)
        flags = ["--headless", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu", "--window-size=1000,1500",
                 f"--user-data-dir={profile}"]
        if os.geteuid() == 0:
            flags.append("--no-sandbox")
        self.process = subprocess.Popen([program, *flags, "about:blank"], pass_fds=(3, 4), stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        for end in (3, 4, theirs_in, theirs_out):
            os.close(end)
        self.last, self.pending, self.events, self.session = 0, b"", [], None
        page = next(target for target in self.call("Target.getTargets")["targetInfos"] if target["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def read(self):
        while b"\0" not in self.pending:
            piece = os.read(self.into, 1 << 16)
            if not piece:
                raise SystemExit("the browser ended")
            self.pending += piece
        message, self.pending = self.pending.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, **parameters):
        self.last += 1
        message = {"id": self.last, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            said = self.read()
            if said.get("id") == self.last:
                if "error" in said:
                    raise SystemExit(f"{method}: {said['error']['message']}")
                return said["result"]
            self.events.append(said)

    def value(self, script):
        said = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in said:
            raise SystemExit(f"{script}: {said['exceptionDetails']}")
        return said["result"].get("value")

    def seen(self, selector):
        """The text of an element as it is drawn; `None` where nobody can see it."""
        return self.value(f"""(() => {{
            const found = document.querySelector({json.dumps(selector)});
            if (!found || !found.checkVisibility({{ opacityProperty: true, visibilityProperty: true }})) return null;
            const box = found.getBoundingClientRect();
            return box.width > 0 && box.height > 0 ? found.innerText : null;
        }})()""")

    def wait(self, what, condition, seconds=20):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if got := condition():
                return got
            time.sleep(0.05)
        raise SystemExit(f"not seen: {what}")

    def click(self, selector):
        """Presses the mouse where the element is drawn."""
        x, y = self.value(f"""(() => {{
            const found = document.querySelector({json.dumps(selector)});
            found.scrollIntoView({{ block: "center" }});
            const box = found.getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2];
        }})()""")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def write(self, selector, text):
        """Puts a text in the place of what a field holds, by the keyboard."""
        self.click(selector)
        self.value("document.activeElement.select()")
        self.call("Input.insertText", text=text)

    def press(self, key):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS[key])

    def picture(self, path):
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self):
        with contextlib.suppress(SystemExit, OSError):
            self.call("Browser.close")
        self.process.wait(10)


KEYS = {"Home": 36, "End": 35, "ArrowRight": 39, "ArrowLeft": 37, "Tab": 9}


def expect(holds, what):
    if not holds:
        raise SystemExit(f"not as it should be: {what}")
    print(f"ok  {what}")


def ask(browser):
    """Asks, and waits until the answer or the error stands there."""
    browser.click("#go")
    browser.wait("the end of the request", lambda: browser.value("!document.getElementById('go').disabled"))
    return browser.wait("an answer or an error", lambda: browser.seen("#answer") or browser.seen("#error"))


def look_at_answer(browser, out):
    context = "Éva 🎻 Moor was born in Riga. She plays the violin."
    browser.write("#context", context)
    browser.write("#question", "Where was Éva Moor born?")
    answer = ask(browser)
    mark = browser.seen("mark")
    expect(mark == answer and mark in context, f"the answer is marked in the text, behind other letters: {mark!r}")
    expect(browser.seen("#marked") == context, "the text stands there as it was pasted")
    colours = browser.value("""["mark", "#marked"].map((it) => getComputedStyle(document.querySelector(it)).backgroundColor)""")
    expect(colours[0] != colours[1], f"the mark has a colour of its own: {colours[0]}")
    for selector, unit in (("#sure", "%"), ("#computed", "ms"), ("#waited", "ms"), ("#bits", ""), ("#size", ""), ("#plan", "")):
        text = browser.seen(selector)
        expect(text and text.endswith(unit) and text != unit, f"{selector} is seen: {text}")
    browser.picture(out / "answer.png")


def look_at_map(browser, plans):
    rows = browser.value("[...document.querySelectorAll('#map tbody tr')].map((row) => row.innerText.split('\\t'))")
    shown = next(plan for plan in plans["plans"] if browser.seen("#map-of").startswith(f"Plan {plan['id']},"))
    expect([row[0] for row in rows] == plans["blocks"], f"the map has a row for each of {len(rows)} blocks")
    expect([[int(bits) for bits in row[1:]] for row in rows] == shown["weights"], f"its bits are those of {shown['id']}")
    colour = "getComputedStyle(document.querySelector('#map td')).backgroundColor"
    return shown["id"], browser.value(colour)


def look_at_sliders(browser, plans, out):
    front = [plan for plan in plans["plans"] if plan["id"] in plans["front"]]
    smallest = min(front, key=lambda plan: plan["bytes"])
    seen = {}
    for slider, key in (("#bytes", "End"), ("#bytes", "Home"), ("#accuracy", "Home")):
        browser.click(slider)
        browser.press(key)
        ask(browser)
        shown, colour = look_at_map(browser, plans)
        expect(browser.seen("#plan") == shown, f"{slider} at its {key}: the map is of the plan that answered, {shown}")
        seen[slider, key] = shown, colour
        if (slider, key) == ("#bytes", "End"):
            browser.picture(out / "budget.png")
    expect(seen["#bytes", "Home"][0] == smallest["id"], "the smallest budget runs the smallest plan")
    expect(seen["#bytes", "End"] != seen["#bytes", "Home"], "another budget is another plan, in another colour")
    browser.click("#accuracy")
    browser.press("End")
    expect(browser.seen("#picked") == "No plan is good enough for that.", "100 % is said to be out of reach")
    ask(browser)
    error = browser.seen("#error")
    expect(error and "accuracy" in error and browser.seen("#answer") is None, f"and refused by name: {error}")


def look_at_cascade(browser, plans, out):
    browser.click("input[value=confidence]")
    expect(browser.seen("#picked").startswith("Cascade: "), "the cascade's thresholds are seen")
    texts = ["Ada Moor was born in Riga. She plays the violin.",
             "Nobody here knows anything. It rained in the valley, and the boats stayed in the harbour all day."]
    counts = []
    for text in texts:
        browser.write("#context", text)
        browser.write("#question", "What does Ada Moor play?")
        ask(browser)
        steps = browser.seen("#steps").split("\n")
        expect("answered" in steps[-1] and all("read again" in step for step in steps[:-1]),
               f"{len(steps) - 1} escalations are seen, the answer behind them")
        expect(browser.value("document.getElementById('sure-name').innerText") == "confidence", "its confidence is named so")
        counts.append(len(steps) - 1)
    expect(max(counts) > 0, "an unsure answer escalates")
    browser.picture(out / "cascade.png")


def look_at_errors(browser):
    browser.click("input[value=default]")
    browser.write("#question", " ")
    ask(browser)
    expect("question" in (browser.seen("#error") or ""), f"an empty question: {browser.seen('#error')}")
    browser.write("#question", "Where was Ada Moor born?")
    expect(ask(browser) and browser.seen("#error") is None, "the next one is answered")


def look_at_loading(browser, url):
    sent = [event["params"]["request"]["url"] for event in browser.events if event["method"] == "Network.requestWillBeSent"]
    expect(sent and all(each.startswith(f"{url}/") for each in sent), f"all {len(sent)} requests went to the server itself")
    entries = [event for event in browser.events if event["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")]
    texts = [event["params"].get("entry", {}).get("text") or json.dumps(event["params"]) for event in entries]
    # The browser logs answers of 4xx, which were asked for.
    faults = [text for text in texts if "status of 422" not in text]
    expect(not faults, f"the browser complains of nothing: {faults}")


def check(browser, url, out):
    with contextlib.closing(browser):
        browser.call("Page.navigate", url=f"{url}/")
        browser.wait("the model's name", lambda: " on " in (browser.seen("#model") or ""))
        expect(browser.seen("noscript") is None and browser.seen("h1") == "switchable-quant", "the page is there")
        plans = browser.value("fetch('plans').then((said) => said.json())")
        look_at_map(browser, plans)
        look_at_answer(browser, out)
        look_at_sliders(browser, plans, out)
        look_at_cascade(browser, plans, out)
        look_at_errors(browser)
        look_at_loading(browser, url)
        browser.call("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=True)
        widths = browser.value("[document.documentElement.scrollWidth, innerWidth]")
        expect(widths[0] <= widths[1], f"a telephone shows it without scrolling sideways: {widths}")
        browser.picture(out / "narrow.png")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True, help="the example `serve`")
    parser.add_argument("--model", required=True, help="an artefact with a front and a cascade")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("."), help="folder of the screenshots")
    arguments = parser.parse_args()
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        print("skipped: no Chromium is here (Debian: chromium)")
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    server = subprocess.Popen([arguments.program, "--model", arguments.model, "--address", "127.0.0.1:0"],
                              stdout=subprocess.PIPE, text=True)
    try:
        url = server.stdout.readline().strip()
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            check(Browser(program, profile), url, arguments.out)
    finally:
        server.terminate()
        server.wait(30)


if __name__ == "__main__":
    main()
