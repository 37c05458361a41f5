"""Publishes prepared windows, as fast as the broker takes them or at a rate.

Run as a program: it reads lines of ``topic payload`` in hexadecimal from a file and says at the end
how long it took. A payload's closing time is what it was prepared for, so lag is known of each.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

IN_FLIGHT = 2000


def main() -> None:
    """Publish and wait until the broker has everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("--rate", type=float, default=0.0, help="messages a second; 0: all at once")
    parser.add_argument("--begin", type=float, default=0.0, help="seconds since 1970")
    options = parser.parse_args()
    lines = [line.split(" ") for line in options.file.read_text().splitlines()]
    messages = [(topic, bytes.fromhex(payload)) for topic, payload in lines]
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"load-{options.file.stem}")
    client.max_inflight_messages_set(IN_FLIGHT)
    client.max_queued_messages_set(0)
    client.connect("127.0.0.1", options.port, 60)
    client.loop_start()
    time.sleep(max(0.0, options.begin - time.time()))
    begun = time.monotonic()
    waiting = []
    for number, (topic, payload) in enumerate(messages):
        if options.rate:
            time.sleep(max(0.0, begun + number / options.rate - time.monotonic()))
        waiting.append(client.publish(topic, payload, qos=1))
    for message in waiting:
        message.wait_for_publish(300)
    seconds = time.monotonic() - begun
    client.disconnect()
    client.loop_stop()
    json.dump({"messages": len(messages), "seconds": seconds}, sys.stdout)


if __name__ == "__main__":
    main()
