"""The sound of a video, for the annotated one."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import av

from fdta.track.stream import FILES_ONLY

COPIED = ("aac", "ac3", "alac", "eac3", "mp3", "opus")
"""Codecs that MP4 holds and players know; others become AAC."""

_logger = logging.getLogger(__name__)


class Sound:
    """The first sound track of a video, which goes into another file piece by piece. A damaged one ends early."""

    def __init__(self, path: Path, start: float, output: av.container.OutputContainer) -> None:
        """Add a track to `output`, if there is one in the video.

        Args:
            path: the video.
            start: its time, in seconds, that is 0 in `output`.
            output: nothing is written to it yet.
        """
        self._path, self._start, self._output = path, start, output
        self._input = av.open(str(path.absolute()), options=FILES_ONLY)
        self._coming: Iterator[av.Packet] = iter(())
        self._waiting: av.Packet | None = None
        if not self._input.streams.audio:
            return
        stream = self._input.streams.audio[0]
        self._copied = stream.codec_context.name in COPIED
        self._track: Any
        if self._copied:
            self._track = output.add_stream_from_template(stream)
        else:
            self._track = output.add_stream("aac", rate=stream.rate)
        self._coming = (packet for packet in self._input.demux(stream) if packet.size)

    def write(self, until: float) -> None:
        """Write what is to be heard before so many seconds."""
        try:
            while (packet := self._next()) is not None and self._time(packet) < until:
                self._waiting = None
                if self._time(packet) >= 0:
                    self._write(packet)
        except (av.FFmpegError, ValueError) as error:
            _logger.warning("%s: its sound ends at %.1f s (%s)", self._path, until, error)
            self._coming, self._waiting = iter(()), None

    def close(self) -> None:
        """End the track."""
        if self._input.streams.audio and not self._copied:
            with suppress(av.FFmpegError):
                self._output.mux(self._track.encode(None))
        self._input.close()

    def _next(self) -> av.Packet | None:
        if self._waiting is None:
            self._waiting = next(self._coming, None)
        return self._waiting

    def _time(self, packet: av.Packet) -> float:
        return float((packet.pts or 0) * (packet.time_base or 0)) - self._start

    def _write(self, packet: av.Packet) -> None:
        assert packet.time_base is not None
        shift = round(self._start / packet.time_base)
        if self._copied:
            packet.pts = (packet.pts or 0) - shift
            packet.dts = packet.pts
            packet.stream = self._track
            self._output.mux(packet)
            return
        for frame in packet.decode():
            assert isinstance(frame, av.AudioFrame)
            frame.pts = None if frame.pts is None else frame.pts - shift
            self._output.mux(self._track.encode(frame))
