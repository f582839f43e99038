import hashlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from kdrun.data.download import ATTEMPTS, File, fetch

CONTENT = bytes(range(256)) * 4000
FILE = File("set.gz", hashlib.md5(CONTENT).hexdigest())


@pytest.fixture
def server():
    """A server of one file on this machine; `how` says what goes wrong, `asked` counts requests."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked += 1
            how = self.server.how.pop(0) if self.server.how else "right"
            if how == "404":
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            if how == "stall":
                self.wfile.write(CONTENT[:1000])
                self.wfile.flush()
                self.server.over.wait(5)
            elif how == "cut":
                self.wfile.write(CONTENT[:1000])
            else:
                self.wfile.write(CONTENT if how == "right" else CONTENT[::-1])

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.how, server.asked, server.over = [], 0, threading.Event()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


def fetched(server, folder):
    fetch([FILE], [f"http://127.0.0.1:{server.server_port}/"], folder, "a set", stalled_seconds=0.5)
    return (folder / FILE.name).read_bytes()


def test_a_file_arrives_whole_and_is_not_asked_for_again(server, tmp_path):
    assert fetched(server, tmp_path / "new") == CONTENT
    assert fetched(server, tmp_path / "new") == CONTENT
    assert server.asked == 1


@pytest.mark.parametrize("how", ["404", "cut", "wrong", "stall"])
def test_what_goes_wrong_once_is_tried_again(server, tmp_path, how):
    server.how = [how]
    assert fetched(server, tmp_path) == CONTENT
    assert server.asked == 2


@pytest.mark.parametrize(
    ("how", "reason"), [("404", "404"), ("cut", "truncated"), ("wrong", "has md5"), ("stall", "timed out")]
)
def test_what_goes_wrong_each_time_leaves_no_file_and_says_what_to_do(server, tmp_path, how, reason):
    server.how = [how] * 9
    start = time.monotonic()
    with pytest.raises(ValueError, match=f"a set: set.gz is missing.*{reason}.*by hand"):
        fetched(server, tmp_path)
    assert server.asked == ATTEMPTS and time.monotonic() - start < 5
    assert [path.name for path in tmp_path.iterdir()] == [".set.gz.lock"]


def test_a_data_folder_that_is_a_file_is_named_before_anything_is_asked_for(server, tmp_path):
    (tmp_path / "notes").write_text("no folder")
    with pytest.raises(ValueError, match=r"a set: \S+/notes is a file; name the set's folder"):
        fetched(server, tmp_path / "notes" / "MNIST" / "raw")
    assert server.asked == 0


def test_a_wrong_file_under_the_right_name_is_replaced(server, tmp_path):
    (tmp_path / FILE.name).write_bytes(b"half")
    assert fetched(server, tmp_path) == CONTENT


def test_two_at_once_download_once(server, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        contents = list(pool.map(lambda _: fetched(server, tmp_path), range(4)))
    assert contents == [CONTENT] * 4 and server.asked == 1
