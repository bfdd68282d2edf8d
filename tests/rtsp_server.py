"""Run an RTSP server for the tests, with the system's Python: ``rtsp_server.py PORT FILE [--camera]``.

The server is GStreamer's (Debian: gir1.2-gst-rtsp-server-1.0, python3-gi, gstreamer1.0-plugins-good,
gstreamer1.0-plugins-bad). It sends the H.264 stream of an MP4 file at ``/exam`` to each client, from the beginning and
at the file's own pace: as a recording of known length, or with ``--camera`` without a length.
"""

from __future__ import annotations

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

port, path = sys.argv[1:3]
pace = "! identity sync=true ! queue " if "--camera" in sys.argv else ""
Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(port)
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(
    f'( filesrc location="{path}" ! qtdemux ! h264parse {pace}! rtph264pay name=pay0 pt=96 config-interval=-1 )'
)
server.get_mount_points().add_factory("/exam", factory)
server.attach(None)
print("ready", flush=True)
GLib.MainLoop().run()
