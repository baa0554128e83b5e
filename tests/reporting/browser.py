"""A page in headless Chromium: what its document holds after a script of the test's has acted on it."""

import json
import re
import shutil
import subprocess
from urllib.parse import unquote

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=5000")

DRIVER = """
<script>
const press = (key) => document.dispatchEvent(new KeyboardEvent("keydown", {{ key, bubbles: true }}));
const click = (selector) => document.querySelector(selector).click();
const text = (selector) => document.querySelector(selector).textContent;
const all = (selector) => [...document.querySelectorAll(selector)].filter((one) => !one.hidden);
const later = (ms) => new Promise((go) => setTimeout(go, ms));
const tell = (what) => {{
  document.body.replaceChildren(); // no document with half a character in it can be dumped
  document.body.dataset.found = encodeURIComponent(JSON.stringify(what));
}};
(async () => {{ {script} }})().then(
  (found) => tell({{ found, errors }}),
  (error) => tell({{ errors: [`${{error}}`] }}),
);
</script>"""
ERRORS = "<script>const errors = []; addEventListener('error', (event) => errors.push(event.message));</script>"


def chromium():
    """The browser's path; the test is skipped where there is none."""
    for name in NAMES:
        if found := shutil.which(name):
            return found
    pytest.skip(f"needs a browser: none of {', '.join(NAMES)} is installed")


def run_in_page(page, tmp_path, script, address=""):
    """What an async function body returns that runs in the page once it is drawn. The page may raise no error."""
    browser = chromium()
    open_to_tests = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', ERRORS, page, count=1)
    path = tmp_path / "page.html"
    path.write_text(open_to_tests.replace("</body>", DRIVER.format(script=script) + "</body>"), encoding="ascii")
    command = [browser, *OPTIONS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", f"{path.as_uri()}{address}"]
    document = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = re.search(r'data-found="([^"]*)"', document)
    assert found, "the script did not come to its end"
    result = json.loads(unquote(found[1]))
    assert not result["errors"], result["errors"]
    return result["found"]
