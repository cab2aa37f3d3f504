"""An S3-compatible server (moto) with real HTTP, on a free port, and what its clients find in their environment."""

import contextlib
import urllib.request

import pytest

BUCKET = "ours"


@contextlib.contextmanager
def server():
    """The server's address; its bucket `ours` is there. Credentials and endpoint are set as a user sets them."""
    from moto.server import ThreadedMotoServer

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOTO_CALL_RESET_API", "false")
        s3 = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        s3.start()
        url = "http://{}:{}".format(*s3.get_host_and_port())
        patch.setenv("AWS_ENDPOINT_URL", url)
        patch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        try:
            ask(f"{url}/{BUCKET}", "PUT")
            yield url
        finally:
            s3.stop()


def ask(url, method="POST", data=None):
    """One request; an error status raises."""
    request = urllib.request.Request(url, data=data, method=method, headers={"Content-Type": "text/plain"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read()
