"""A message when a run fails: the automation of docs/nightly.md, sent for real to a web hook on this machine."""

import http.server
import json
import queue
import subprocess
import sys
import threading

import pytest

from ivcore.config import merge
from tests.e2e.conftest import ROOT, SMALL

SENDER = """
import sys
from prefect.blocks.notifications import CustomWebhookNotificationBlock as Hook
hook = Hook(name="test", url=sys.argv[1], json_data={"subject": "{{subject}}", "body": "{{body}}"})
print(hook.save("iv-test", overwrite=True))
"""


@pytest.fixture
def messages():
    """(address of a web hook, queue of what it was sent)."""
    got = queue.Queue()

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            got.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", got
    server.shutdown()
    server.server_close()


def _python(servers, *args):
    done = subprocess.run([sys.executable, *args], env=servers.env, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split()[-1]


def test_the_automation_of_the_docs_sends_a_message_when_a_run_fails(servers, messages, tmp_path):
    address, got = messages
    block = _python(servers, "-c", SENDER, address)
    (example,) = (x for x in (ROOT / "docs" / "nightly.md").read_text().split("```yaml\n")[1:] if "automations:" in x)
    (tmp_path / "automation.yaml").write_text(example.partition("```")[0].replace("YOUR-BLOCK-ID", block))
    _python(servers, "-m", "prefect", "automation", "create", "--from-file", str(tmp_path / "automation.yaml"))
    wrong = merge(SMALL, {"arms": [{"name": "other", "set": {"train.s2.lrr": 1.0}}]})
    _, run = servers.trigger("everything/everything", wrong)
    failed = servers.wait(run["id"])
    message = got.get(timeout=120)
    assert message["subject"] == "ivflow" and failed["name"] in message["body"] and "train.s2.lrr" in message["body"]
