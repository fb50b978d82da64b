"""Cameras on loopback: RTSP (H.264 over TCP) and HTTP (JPEG images one after the other)."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import av
import cv2
import numpy as np

WIDTH, HEIGHT = 64, 48


class Camera:
    """A running camera: each connection is given the frames that `connections` tells, then it is cut."""

    def __init__(self, connections: list[range], pause: float) -> None:
        self.connections, self.pause = connections, pause
        self.opened = 0
        self.url = ""
        self.done = threading.Event()

    def next_frames(self) -> range:
        number, self.opened = self.opened, self.opened + 1
        return self.connections[number] if number < len(self.connections) else range(0)

    def pace(self) -> None:
        self.done.wait(self.pause)


def picture(number: int) -> np.ndarray:
    """Grey of the level ten times `number`."""
    return np.full((HEIGHT, WIDTH, 3), 10 * number, np.uint8)


def number_of(image: np.ndarray) -> int:
    return round(float(image.mean()) / 10)


@contextmanager
def rtsp_camera(connections: list[range], pause: float = 0.0) -> Iterator[Camera]:
    """A camera at an address of rtsp."""
    packets = _rtp_packets(1 + max(number for frames in connections for number in frames))

    def serve(camera: Camera, connection: socket.socket) -> None:
        requests = connection.makefile("rb")
        while line := requests.readline():
            method = line.split()[0].decode()
            headers = dict(_header(one) for one in iter(requests.readline, b"\r\n"))
            answer, body = [f"CSeq: {headers['cseq']}"], b""
            if method == "OPTIONS":
                answer.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
            elif method == "DESCRIBE":
                body = b"v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:track\r\n"
                answer += ["Content-Type: application/sdp", f"Content-Length: {len(body)}"]
            else:
                answer += ["Session: 1", "Transport: RTP/AVP/TCP;unicast;interleaved=0-1"]
            connection.sendall("\r\n".join(["RTSP/1.0 200 OK", *answer, "", ""]).encode() + body)
            if method == "PLAY":
                for number in camera.next_frames():
                    for packet in packets[number]:
                        connection.sendall(b"$\0" + len(packet).to_bytes(2, "big") + packet)
                    camera.pace()
                return

    yield from _serving("rtsp", connections, pause, serve)


@contextmanager
def http_camera(connections: list[range], pause: float = 0.0) -> Iterator[Camera]:
    """A camera at an address of http."""

    def serve(camera: Camera, connection: socket.socket) -> None:
        connection.recv(65536)
        start = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=next\r\n\r\n"
        connection.sendall(start)
        for number in camera.next_frames():
            data = cv2.imencode(".jpg", picture(number))[1].tobytes()
            head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            connection.sendall(head.encode() + data + b"\r\n")
            camera.pace()

    yield from _serving("http", connections, pause, serve)


def _serving(
    scheme: str, connections: list[range], pause: float, serve: Callable[[Camera, socket.socket], None]
) -> Iterator[Camera]:
    camera = Camera(connections, pause)
    server = socket.create_server(("127.0.0.1", 0))
    camera.url = f"{scheme}://user:secret@127.0.0.1:{server.getsockname()[1]}/street/1?token=secret"

    def run() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            if camera.done.is_set():
                return
            with connection, suppress(OSError, KeyError):
                serve(camera, connection)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield camera
    finally:
        camera.done.set()
        with suppress(OSError), socket.create_connection(server.getsockname()):
            pass
        thread.join()
        server.close()


def _header(line: bytes) -> tuple[str, str]:
    name, _, value = line.decode().partition(":")
    return name.lower(), value.strip()


def _rtp_packets(frames: int) -> list[list[bytes]]:
    """RTP packets of each frame; every frame can be decoded alone."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(5)
        address = f"rtp://127.0.0.1:{receiver.getsockname()[1]}?pkt_size=1400"
        taken = []
        with av.open(address, "w", format="rtp") as container:
            options = {
                "g": "1",
                "tune": "zerolatency",
                "x264-params": "repeat-headers=1:annexb=1:slices=1:sliced-threads=0",
            }
            stream = container.add_stream("libx264", rate=25, options=options)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            for number in range(frames):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
                packets = [_data(receiver)]
                # The last packet of a frame bears a mark.
                while not packets[-1][1] & 0x80:
                    packets.append(_data(receiver))
                taken.append(packets)
    return taken


def _data(receiver: socket.socket) -> bytes:
    """The next packet with data; others report how many there were."""
    while True:
        packet = receiver.recv(65536)
        if packet[1] & 0x7F == 96:
            return packet


@contextmanager
def http_answer(answer: bytes) -> Iterator[Camera]:
    """A server that answers everything with `answer` and ends the connection."""

    def serve(camera: Camera, connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(answer)

    yield from _serving("http", [], 0.0, serve)
