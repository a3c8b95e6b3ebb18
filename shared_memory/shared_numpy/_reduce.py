"""The functions that pickles of this package name.

Another version may read a pickle than the one that made it: these names stay for good, wherever the
functions behind them move.
"""

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, List


def _named(name: str, home: str) -> "Callable[..., Any]":
    """Return a function `name` that imports the module of another function, and calls that."""
    module, _, function = home.rpartition(".")
    found = []  # type: List[Callable[..., Any]]

    def call(*parts):
        if not found:
            found.append(getattr(import_module("." + module, __package__), function))
        return found[0](*parts)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = "See `{}`.".format(home)
    return call


array = _named("array", "_pickling.by_reference.rebuild")
array_in_own_memory = _named("array_in_own_memory", "_pickling.moved.rebuild_in_own_memory")
array_on_own_pages = _named("array_on_own_pages", "_pickling.moved.rebuild_on_own_pages")
begin_server = _named("begin_server", "managers.begin_server")
call_each = _named("call_each", "executor.call_each")
call_in_context = _named("call_in_context", "context.call")
channel = _named("channel", "_channels.open_channel")
enter_context = _named("enter_context", "context.enter")
handle = _named("handle", "handles.Handle")
manager = _named("manager", "managers.connected")
masked_array = _named("masked_array", "_pickling.masked.rebuild_masked")
named_array = _named("named_array", "named.rebuild")
packet_channel = _named("packet_channel", "_channels.pipe_channel.rebuild")
per_host_array = _named("per_host_array", "integrations._dask.array.rebuild")
pipe = _named("pipe", "_channels.packet_pipe.rebuild")
plain_array = _named("plain_array", "_pickling.moved.rebuild_plain")
run_in_context = _named("run_in_context", "context.run")
same = _named("same", "_pickling.by_reference.same")
sent_channel = _named("sent_channel", "_channels.ChannelArgument")
sharing = _named("sharing", "_pickling.multiprocessing_reducers.share_from")
tracker = _named("tracker", "_system.tracker_py37.inherit")
view = _named("view", "_pickling.by_reference.rebuild_view")
worker = _named("worker", "_pool.worker_main.work")
wrapper = _named("wrapper", "_pickling.classes.wrap")
