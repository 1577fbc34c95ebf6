"""What a process does that is asked to stop, alone and beside others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from ascl_plugin.training import signals
from ascl_plugin.training.signals import StopSignal, lost_peer

GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer"


def run(world=1, others=0):
    """An accelerator whose other process was sent the signal `others`."""
    return SimpleNamespace(
        num_processes=world,
        device=torch.device("cpu"),
        gather=lambda own: torch.cat([own, torch.tensor([others] * (world - 1))]),
    )


@pytest.fixture(autouse=True)
def handlers():
    """Those of before, whatever a test leaves."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_remembered_and_handlers_come_back(number, handlers):
    stop = StopSignal(run())
    with stop.awaited():
        assert not stop.anywhere()
        os.kill(os.getpid(), number)
        assert stop.anywhere() and stop.number == number
    assert signal.getsignal(number) == handlers[number]


def test_only_a_late_second_ctrl_c_is_immediate(monkeypatch):
    """An early one is the launcher's, of what was sent to all."""
    stop = StopSignal(run())
    with stop.awaited():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        monkeypatch.setattr(signals, "_ECHO", -1)
        with pytest.raises(KeyboardInterrupt) as caught:
            os.kill(os.getpid(), signal.SIGINT)
    assert not caught.value.args


def test_all_processes_know_the_signal_of_one():
    asked, told = StopSignal(run(2)), StopSignal(run(2, signal.SIGTERM))
    with asked.awaited():
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked.anywhere()
    assert told.anywhere() and told.number == asked.number == signal.SIGTERM
    assert not StopSignal(run(2)).anywhere()


@pytest.mark.parametrize(("world", "deaf"), [(1, False), (2, True)])
def test_of_several_one_that_stops_is_deaf_to_what_the_launcher_sends(handlers, world, deaf):
    stop = StopSignal(run(world))
    with pytest.raises(KeyboardInterrupt), stop.awaited():
        raise KeyboardInterrupt("signal 15")
    expected = signal.SIG_IGN if deaf else handlers[signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) == expected
    assert signal.getsignal(signal.SIGINT) == handlers[signal.SIGINT]


def test_who_was_asked_to_stop_and_loses_the_others_stops():
    stop = StopSignal(run(2))
    with pytest.raises(KeyboardInterrupt, match="signal 15"), stop.awaited():
        os.kill(os.getpid(), signal.SIGTERM)
        raise RuntimeError(GLOO)
    for error, sent in ((GLOO, False), ("a bug", True)):
        stop = StopSignal(run(2))
        with pytest.raises(RuntimeError), stop.awaited():
            if sent:
                os.kill(os.getpid(), signal.SIGTERM)
            raise RuntimeError(error)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's word of it is Linux's")
def test_the_kernel_tells_of_the_end_of_the_launcher():
    """A process that forks one which sleeps, as a launcher does, and is killed."""
    program = (
        "import os, time; from ascl_plugin.training.signals import end_with_launcher as end\n"
        "if os.fork(): os.wait()\n"
        "else: end(); print(os.getpid(), flush=True); time.sleep(60); print('slept')"
    )
    environment = {**os.environ, "TORCHELASTIC_RUN_ID": "none"}
    launcher = subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert int(launcher.stdout.readline()) != launcher.pid
    launcher.kill()
    assert "slept" not in launcher.communicate(timeout=30)[0]  # which waits for both


def test_errors_of_a_lost_process_are_told_from_others():
    assert lost_peer(RuntimeError(GLOO)) and lost_peer(torch.distributed.DistNetworkError("x"))
    assert not lost_peer(RuntimeError("out of memory"))
