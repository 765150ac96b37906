"""Videos that tests draw."""

import av
import numpy as np


def write_flat(path, colours, size=(96, 64), fps=24):
    """Write a video whose frames have one colour each, (red, green, blue) of 0 to 255."""
    width, height = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"qp": "4", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for colour in colours:
            picture = np.empty((height, width, 3), np.uint8)
            picture[:] = colour
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path
