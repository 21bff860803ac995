"""Decoupled models in this process: credit, ends, failures, cancellation."""

import numpy as np
import pytest
from tests.support.worker_host import MakeHost, Reply, WorkerHost, make_host, request_bytes

from penstock.worker.wire import Kind

__all__ = ["make_host"]

LAST, LAST_WITHOUT_BODY = 1, 3

COUNTER = """
    import numpy as np
    class Model:
        inputs = {"n": ("INT32", (1,))}
        outputs = {"i": ("INT32", (1,))}
        def predict(self, batch):
            try:
                for i in range(int(batch["n"][0, 0])):
                    yield {"i": np.array([[i]], np.int32)}
                if batch["n"][0, 0] == 0:
                    raise ValueError("nothing")
            except GeneratorExit:
                print("told")
                raise
"""

TRITON = """
    import threading
    import numpy as np
    import triton_python_backend_utils as pb_utils
    class TritonPythonModel:
        @staticmethod
        def auto_complete_config(config):
            config.add_input({"name": "n", "data_type": "TYPE_INT32", "dims": [1]})
            config.add_output({"name": "i", "data_type": "TYPE_INT32", "dims": [1]})
            config.set_model_transaction_policy({"decoupled": True})
            return config
        def execute(self, requests):
            for request in requests:
                threading.Thread(target=self.answer, args=(request,)).start()
        def answer(self, request):
            sender = request.get_response_sender()
            n = pb_utils.get_input_tensor_by_name(request, "n").as_numpy()[0]
            for i in range(n):
                tensor = pb_utils.Tensor("i", np.array([i], np.int32))
                sender.send(pb_utils.InferenceResponse(output_tensors=[tensor]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""


def receive(host: WorkerHost) -> Reply:
    """The next packet; it is taken at once."""
    reply = host.receive()
    if reply.body:
        host.send(Kind.TAKEN)
    return reply


def run(host: WorkerHost, *counts: int, room: int = 100) -> None:
    requests = [request_bytes(1, room=room) for _ in counts]
    array = np.array(counts, np.int32).reshape(-1, 1)
    host.run([array], (0,), requests)


def test_generators_of_a_batch_answer_in_turn(make_host: MakeHost) -> None:
    host = make_host(COUNTER)
    assert host.start().kind is Kind.READY
    run(host, 3, 2)
    seen: list[tuple[int, int]] = []
    while [value for _, value in seen].count(LAST_WITHOUT_BODY) < 2:
        reply = receive(host)
        if reply.kind is Kind.RESPONSE:
            seen.append((reply.request, reply.value))
    assert [request for request, value in seen if value == 0] == [0, 1, 0, 1, 0]


def test_model_waits_for_credit(make_host: MakeHost) -> None:
    host = make_host(COUNTER)
    assert host.start().kind is Kind.READY
    run(host, 5, room=2)
    replies = [receive(host) for _ in range(3)]
    assert [reply.kind for reply in replies] == [Kind.DONE, Kind.RESPONSE, Kind.RESPONSE]
    host.send(Kind.CREDIT, batch=1, request=0, value=1)
    assert receive(host).kind is Kind.RESPONSE
    host.send(Kind.CREDIT, batch=1, request=0, value=9)
    assert [receive(host).value for _ in range(3)] == [0, 0, LAST_WITHOUT_BODY]


def test_cancellation_reaches_the_generator(
    make_host: MakeHost, capfd: pytest.CaptureFixture[str]
) -> None:
    host = make_host(COUNTER)
    assert host.start().kind is Kind.READY
    run(host, 1000, room=1)
    assert [receive(host).kind for _ in range(2)] == [Kind.DONE, Kind.RESPONSE]
    host.send(Kind.CANCEL, batch=1, request=0)
    assert receive(host).value == LAST_WITHOUT_BODY
    assert "told" in capfd.readouterr().out


def test_exception_ends_its_stream_with_a_failure(make_host: MakeHost) -> None:
    host = make_host(COUNTER)
    assert host.start().kind is Kind.READY
    run(host, 0)
    assert receive(host).kind is Kind.DONE
    reply = host.receive()
    assert reply.value == LAST
    assert "ValueError: nothing" in host.results(reply)[0][1]
    host.send(Kind.TAKEN)
    run(host, 1)
    assert [receive(host).value for _ in range(3)] == [0, 0, LAST_WITHOUT_BODY]


def test_triton_senders_answer_from_their_threads(make_host: MakeHost) -> None:
    host = make_host(TRITON)
    assert host.start().kind is Kind.READY
    host.run([np.array([3], np.int32)], (0,), [request_bytes(1, room=1)])
    got = []
    for _ in range(5):
        reply = host.receive()
        if reply.kind is Kind.RESPONSE and reply.body:
            got.append(int(host.results(reply)[0][2][0][0]))
            host.send(Kind.CREDIT, batch=1, request=0, value=1)
        if reply.body:
            host.send(Kind.TAKEN)
    assert got == [0, 1, 2]
    assert reply.value == LAST_WITHOUT_BODY or reply.kind is Kind.DONE


STUBBORN = """
    import numpy as np
    class Model:
        inputs = {"n": ("INT32", (1,))}
        outputs = {"i": ("INT32", (1,))}
        def predict(self, batch):
            times_told = 0
            while times_told < 2:
                try:
                    yield {"i": np.zeros((1, 1), np.int32)}
                except GeneratorExit:
                    times_told += 1
                    if batch["n"][0, 0] == 7:
                        raise KeyError("clean-up")
        def unload(self):
            print("unloaded")
"""


@pytest.mark.parametrize("n", [1, 7])
def test_generator_that_cannot_be_closed_ends_its_own_stream_only(
    make_host: MakeHost, capfd: pytest.CaptureFixture[str], n: int
) -> None:
    host = make_host(STUBBORN)
    assert host.start().kind is Kind.READY
    run(host, n, n, room=1)
    assert [receive(host).kind for _ in range(3)] == [Kind.DONE, Kind.RESPONSE, Kind.RESPONSE]
    host.send(Kind.CANCEL, batch=1, request=0)
    assert receive(host).value == LAST_WITHOUT_BODY
    host.send(Kind.CREDIT, batch=1, request=1, value=1)
    reply = receive(host)
    assert (reply.request, reply.value) == (1, 0)
    host.close()  # the other is closed now, and the model all the same
    assert "unloaded" in capfd.readouterr().out


RACING = """
    import threading
    import numpy as np
    import triton_python_backend_utils as pb_utils
    class TritonPythonModel:
        @staticmethod
        def auto_complete_config(config):
            config.add_input({"name": "n", "data_type": "TYPE_INT32", "dims": [1]})
            config.add_output({"name": "i", "data_type": "TYPE_INT32", "dims": [1]})
            config.set_model_transaction_policy({"decoupled": True})
            return config
        def execute(self, requests):
            sender = requests[0].get_response_sender()
            for _ in range(4):
                threading.Thread(target=self.answer, args=(sender,), daemon=True).start()
        def answer(self, sender):
            tensor = pb_utils.Tensor("i", np.zeros(1, np.int32))
            for _ in range(5):
                sender.send(pb_utils.InferenceResponse(output_tensors=[tensor]))
"""


def test_threads_with_one_sender_share_its_credit(make_host: MakeHost) -> None:
    host = make_host(RACING)
    assert host.start().kind is Kind.READY
    host.run([np.array([3], np.int32)], (0,), [request_bytes(1, room=1)])
    kinds = [receive(host).kind for _ in range(2)]
    for _ in range(19):
        host.send(Kind.CREDIT, batch=1, request=0, value=1)
        kinds.append(receive(host).kind)
        assert host.is_silent()
    assert kinds.count(Kind.RESPONSE) == 20


def test_batch_that_cannot_be_taken_fails_and_the_next_one_runs(make_host: MakeHost) -> None:
    host = make_host(COUNTER)
    assert host.start().kind is Kind.READY
    host.run([np.zeros((1, 1), np.int32)] * 2, (0,), [request_bytes(1, room=9)])
    reply = host.receive()
    assert reply.kind is Kind.DONE
    assert "IndexError" in host.results(reply)[0][1]
    host.send(Kind.TAKEN)
    run(host, 1)
    assert [receive(host).value for _ in range(3)] == [0, 0, LAST_WITHOUT_BODY]


def test_response_may_leave_outputs_out(make_host: MakeHost) -> None:
    source = COUNTER.replace('"i": ("INT32", (1,))', '"i": ("INT32", (1,)), "j": ("INT32", (1,))')
    host = make_host(source)
    assert host.start().kind is Kind.READY
    requests = [request_bytes(1, (0, 1), room=9)]
    host.run([np.array([[1]], np.int32)], (0, 1), requests)
    assert receive(host).kind is Kind.DONE
    ((code, _, outputs),) = host.results(receive(host))
    assert (code, len(outputs)) == (0, 1)


def test_response_without_room_ends_its_stream_alone(make_host: MakeHost) -> None:
    large = "np.zeros((1, 10000 if batch['n'][0, 0] == 2 else 1), np.int32)"
    host = make_host(COUNTER.replace("np.array([[i]], np.int32)", large))
    assert host.start().kind is Kind.READY
    host.has_room = False
    run(host, 2)
    assert receive(host).kind is Kind.DONE
    ((code, text, _),) = host.results(receive(host))
    assert (code, "the server has no memory for outputs of " in text) == (8, True)
    assert receive(host).value == LAST_WITHOUT_BODY
    run(host, 1)
    assert [receive(host).value for _ in range(3)] == [0, 0, LAST_WITHOUT_BODY]
