"""The script that one would write by hand today: JSON windows in and JSON results out, both sealed with AES-GCM.

It is written as well as its libraries allow: TCP_NODELAY, 1000 messages in flight, tensor indices looked up once, one
thread. It stores its model and key in plain files, says nothing of who sent what, and notices no replay.

Example: naive.py --port 1883 --model model.tflite --key key.bin --input in --output out
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as mqtt
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from paho.mqtt.enums import CallbackAPIVersion

try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:
    from tflite_runtime.interpreter import Interpreter

LABELS = ["healthy", "worn", "cracked", "broken"]
NONCE = 12


def main() -> None:
    """Answer windows until the process is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--key", type=Path, required=True)
    parser.add_argument("--input", required=True)
    parser.add_argument("--output", required=True)
    args = parser.parse_args()

    aead = AESGCM(args.key.read_bytes())
    interpreter = Interpreter(model_path=args.model, num_threads=1)
    interpreter.allocate_tensors()
    details = interpreter.get_input_details()[0]
    tensor_in, shape = details["index"], details["shape"]
    tensor_out = interpreter.get_output_details()[0]["index"]

    def on_connect(client: mqtt.Client, *_: Any) -> None:
        client.subscribe(args.input, qos=1)

    def on_subscribe(*_: Any) -> None:
        print("ready", flush=True)

    def on_socket_open(_client: mqtt.Client, _userdata: object, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def on_message(client: mqtt.Client, _userdata: object, message: mqtt.MQTTMessage) -> None:
        sealed = message.payload
        window = json.loads(aead.decrypt(sealed[:NONCE], sealed[NONCE:], None))
        interpreter.set_tensor(tensor_in, np.array(window, dtype=np.float32).reshape(shape))
        interpreter.invoke()
        scores = interpreter.get_tensor(tensor_out)[0]
        best = int(scores.argmax())
        result = {"time": time.time(), "label": LABELS[best], "score": float(scores[best]), "scores": scores.tolist()}
        nonce = os.urandom(NONCE)
        client.publish(args.output, nonce + aead.encrypt(nonce, json.dumps(result).encode(), None), qos=1)

    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.max_inflight_messages_set(1000)
    client.on_connect = on_connect
    client.on_subscribe = on_subscribe
    client.on_socket_open = on_socket_open  # type: ignore[assignment]  # paho's type has no options
    client.on_message = on_message
    client.connect("127.0.0.1", args.port)
    client.loop_forever()


if __name__ == "__main__":
    main()
