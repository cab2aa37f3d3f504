import threading

import pytest

from tasks.sender import BATCH, Sender

WAIT_S = 30  # for what comes at once, or never


class Server:
    """Takes figures; may be away, or not answer for as long as is wanted."""

    def __init__(self):
        self.got, self.sizes, self.away = [], [], False
        self.called, self.answer, self.tried = threading.Event(), threading.Event(), threading.Semaphore(0)
        self.answer.set()

    def send(self, part):
        self.called.set()
        assert self.answer.wait(WAIT_S)
        self.tried.release()
        if self.away:
            raise ConnectionError("nobody there\nsecond line")
        self.sizes.append(len(part))
        self.got += part


@pytest.fixture
def server():
    return Server()


def test_every_figure_arrives_in_order(server):
    sender = Sender(server.send)
    for start in range(0, 5000, 7):
        sender.put(range(start, min(start + 7, 5000)))
    sender.close()
    assert server.got == list(range(5000)) and max(server.sizes) <= BATCH


def test_few_figures_do_not_wait_for_the_end(server):
    sender = Sender(server.send, every_s=0.01)
    sender.put([1])
    assert server.called.wait(WAIT_S)
    sender.close()
    assert server.got == [1]


def test_who_puts_never_waits_for_the_server(server, caplog):
    server.answer.clear()
    sender = Sender(server.send, every_s=0.01)
    sender.put([0])
    assert server.called.wait(WAIT_S)  # and it has not answered
    for n in range(1, 2000):
        sender.put([n])
    server.answer.set()
    sender.close()
    assert server.got == list(range(2000)) and caplog.text == ""


def test_what_a_server_missed_while_it_was_away_comes_later_in_order(server, caplog):
    server.away = True
    sender = Sender(server.send, every_s=0.01)
    for n in range(2 * BATCH):
        sender.put([n])
    for _ in range(3):
        assert server.tried.acquire(timeout=WAIT_S)
    server.away = False
    sender.close()
    assert server.got == list(range(2 * BATCH))
    (said,) = [r.getMessage() for r in caplog.records]
    assert said == "MLflow could not log figures: ConnectionError: nobody there; they wait, and the run goes on"


def test_too_many_are_given_up_and_said_once(server, caplog):
    server.answer.clear()
    server.away = True
    sender = Sender(server.send, every_s=0.01, bound=10)
    for n in range(30):
        sender.put([n])
    server.answer.set()
    sender.close()
    said = [r.getMessage() for r in caplog.records if "lost" in r.getMessage()]
    assert said == ["MLflow does not answer: 11 figures of this step are lost, and it gets no more"]
    assert server.got == []


def test_the_end_of_the_work_tries_once_and_says_what_is_lost(server, caplog):
    server.away = True
    sender = Sender(server.send, every_s=1000)
    sender.put([1, 2])
    sender.close()
    assert "2 figures of this step are lost" in caplog.text and not sender._thread.is_alive()
