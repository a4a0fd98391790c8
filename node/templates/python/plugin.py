"""A plugin for Portolan: a worker that answers every message with the message itself."""

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import host, node
from wit_world.imports.types import Info, Message


class Handler(exports.Handler):
    def describe(self) -> Info:
        """What `portolan plugin add` shows. Whatever else the worker does needs a right in `wants`; the list is in wit/worker.wit."""
        return Info(
            name="{{name}}",
            version="0.1.0",
            description="Answers every message with the message itself.",
            wants=["reply", "from:local", "from:peers"],
        )

    def start(self, config: str) -> None:
        """Raising `Err` with a text refuses the configuration, and the worker is not started."""
        if config.strip() not in ("", "{}"):
            raise Err(f"this plugin has nothing to configure, and got {config}")
        host.log(host.Level.INFO, f"ready at {node.own_address()}")

    def handle(self, message: Message) -> None:
        """An `Err` with a text is logged and counted, and the next message comes. Any other exception restarts the plugin."""
        try:
            node.send(message.return_route, message.body)
        except Err as error:
            raise Err(f"no answer was sent: {error.value}")

    def on_timer(self, token: int) -> None:
        pass

    def stop(self) -> None:
        pass
