"""Becomes the broker: run as a child of the server, and ended with it whatever ends the server.

``python -m fleet_server.broker.child PARENT mosquitto PROGRAM CONFIG`` or
``... PARENT embedded CONFIG``.
"""

import ctypes
import logging
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Tie this process to its parent, then turn into the broker."""
    parent, kind, *rest = sys.argv[1:]
    os.setsid()  # the server, not Ctrl-C in its terminal, ends the broker
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # survives exec
    if os.getppid() != int(parent):
        sys.exit(0)  # the server ended before the line above
    if kind == "mosquitto":
        program, config = rest
        os.execv(program, [program, "-c", config])
    from iotcore import IotCoreBroker  # loaded by the embedded broker only

    logging.getLogger("rumqttd").setLevel(logging.CRITICAL)  # it logs every packet as an error
    IotCoreBroker(config_path=rest[0]).run_forever()


if __name__ == "__main__":
    main()
