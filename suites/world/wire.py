"""Messages between the processes of a run: JSON over a connection, one object each.

No pickles: they would run whatever the other side sends.
"""

import json
from multiprocessing.connection import Connection
from threading import Lock
from typing import Any

Message = dict[str, Any]
BEAT_SECONDS = 1.0
"""How often a process tells that it lives."""
SILENT_SECONDS = 3.5
"""After which it is taken not to."""


class Wire:
    """One end of a connection; several threads may tell, one hears.

    Args:
        connection: a pipe or a socket.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._lock = Lock()

    def tell(self, message: Message) -> bool:
        """Send; False when the other side is gone."""
        try:
            with self._lock:
                self.connection.send_bytes(json.dumps(message, allow_nan=False).encode())
        except (OSError, ValueError):
            return False
        return True

    def hear(self) -> Message | None:
        """What has arrived, waiting for it; None when the other side is gone or sends what is no message."""
        try:
            message = json.loads(self.connection.recv_bytes(2**24))
        except (EOFError, OSError, ValueError):
            return None
        return message if isinstance(message, dict) else None

    def close(self) -> None:
        """Hang up."""
        self.connection.close()
