"""What both servers of the agent, the API (api.py) and the control protocol (driver.py), ask of a connection."""

import socket


def hung_up(connection: socket.socket) -> bool:
    """Whether the other side has closed: then there is an end to read; who waits for the answer sends nothing."""
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
