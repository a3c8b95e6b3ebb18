"""Light futures: to whoever looks they are those of the standard library."""

import copy
import gc
import pickle
import sys
import threading
import time
import weakref
from concurrent import futures
from concurrent.futures import Future

import pytest

from shared_numpy._pool import light_future
from shared_numpy._pool.light_future import LightFuture


def test_they_have_what_others_have():
    light, heavy = LightFuture(), Future()
    for name, value in vars(heavy).items():
        mine = getattr(light, name)
        assert type(mine) is type(value) and getattr(light, name) is mine
        if not name == "_condition":
            assert mine == value
    assert set(vars(light)) - set(vars(heavy)) == {"_is_watched"}
    with pytest.raises(AttributeError, match="'LightFuture' object has no attribute 'nothing'"):
        light.nothing


@pytest.mark.parametrize("watched", [False, True])
def test_a_life(watched):
    future, told = LightFuture(), []
    if watched:
        future.add_done_callback(told.append)
    assert not future._is_watched or watched
    assert "pending" in repr(future) and not future.done()
    assert future.cancel() is True and future.cancelled()
    assert told == [future] * watched

    future = LightFuture()
    if watched:
        future.add_done_callback(told.append)
    future.begin()
    assert future.running() and not future.cancel()
    if not watched:
        future = LightFuture()
        future.begin()
    future.settle("it")
    assert future._is_watched == watched
    assert future.result() == future.result(0) == "it"
    assert future.exception() is None and future.done() and not future.running()
    assert "finished returned str" in repr(future)
    assert told[1:] == [future] * watched
    late = []
    future.add_done_callback(late.append)
    assert late == [future]
    assert list(futures.as_completed([future])) == [future]
    assert futures.wait([future]).done == {future}


def test_errors():
    future = LightFuture()
    with pytest.raises(futures.TimeoutError):
        future.result(0)
    error = ValueError("it")
    future.set_exception(error)
    with pytest.raises(ValueError, match="it"):
        future.result()
    assert future.exception() is error


@pytest.mark.skipif(sys.version_info < (3, 8), reason="futures of 3.6 and 3.7 keep it, too")
def test_an_error_keeps_nobody_s_variables():
    class Thing:
        pass

    def failed():
        future = LightFuture()
        future.set_exception(ValueError("it"))
        return future

    def fail():
        thing = Thing()
        seen.append(weakref.ref(thing))
        try:
            failed().result()
        except ValueError:
            pass

    seen = []
    gc.disable()
    try:
        fail()
        assert seen[0]() is None
    finally:
        gc.enable()


def test_cancelled_ones_stay_so():
    future = LightFuture()
    assert future.cancel() and not future.set_running_or_notify_cancel()
    future.begin()
    assert future.cancelled()
    if sys.version_info >= (3, 8):
        with pytest.raises(futures.InvalidStateError):
            future.settle(1)
        assert future.cancelled()


def test_they_stay_in_their_process():
    future = LightFuture()
    for way in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled or copied"):
            way(future)


class Stepwise(LightFuture):
    """A step can come between the look whether it is watched and the change."""

    def settle(self, result):
        if self._is_watched:
            self.set_result(result)
        else:
            self._result = result
            time.sleep(0)
            self._state = futures._base.FINISHED


def race(cls, seconds):
    """Settle futures while others begin to wait; return those that were not told."""
    lost = []
    end = time.monotonic() + seconds
    while time.monotonic() < end and not lost:
        made = [cls() for _ in range(50)]
        told = [[] for _ in made]
        started = threading.Barrier(3)

        def settle(made=made, started=started):
            started.wait()
            for number, future in enumerate(made):
                future.begin()
                future.settle(number)

        def watch(made=made, told=told, started=started):
            started.wait()
            for future, mine in zip(made, told):
                future.add_done_callback(mine.append)

        threads = [threading.Thread(target=each) for each in (settle, watch)]
        for thread in threads:
            thread.start()
        started.wait()
        try:
            assert len(list(futures.as_completed(made, timeout=1))) == len(made)
        except futures.TimeoutError:
            lost.append("as_completed")
        for thread in threads:
            thread.join()
        lost += [mine for future, mine in zip(made, told) if mine != [future]]
        assert [future.result(0) for future in made] == list(range(50))
    return lost


def test_whoever_waits_is_told(quick_switches):
    assert race(LightFuture, 1.5) == []


def test_the_race_would_be_seen(quick_switches):
    assert race(Stepwise, 20)


def test_conditions_are_made_once(quick_switches):
    for _ in range(200):
        future, found = LightFuture(), []
        threads = [
            threading.Thread(target=lambda: found.append(future._condition)) for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(each is future._condition for each in found) and len(found) == 3


@pytest.mark.parametrize("way", ["result", "exception"])
def test_ctrl_c_leaves_no_condition_locked(way):
    """As one that waits leaves its `with` statement: what ends it is a function of Python's."""
    future, exit = LightFuture(), threading.Condition.__exit__.__code__

    def trace(frame, event, _):
        if frame.f_code is exit and frame.f_back.f_code.co_name == way:
            sys.settrace(before)
            raise KeyboardInterrupt

    before = sys.gettrace()
    try:
        sys.settrace(trace)
        with pytest.raises(KeyboardInterrupt):
            getattr(future, way)(0.01)
    finally:
        sys.settrace(before)
    assert not future._condition._is_owned()


@pytest.mark.parametrize("settle", [
    lambda future: future.settle(1), lambda future: future.fail(ValueError())
])  # fmt: skip
def test_a_condition_that_was_left_locked_is_freed(settle, monkeypatch):
    monkeypatch.setattr(light_future, "_LONGEST_HOLD", 1)
    future = LightFuture()
    future.begin()
    waiter = threading.Thread(target=future.exception)
    waiter.start()
    while not future._condition._waiters:
        time.sleep(0.001)
    left = threading.Thread(target=future._condition.acquire)
    left.start()
    left.join()
    settle(future)
    waiter.join(20)
    assert future.done() and not waiter.is_alive()


def test_no_attribute_of_the_base_is_forgotten():
    assert set(light_future._MADE) | {"_state", "_result", "_exception"} == set(vars(Future()))
