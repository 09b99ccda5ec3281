"""Real-time human action and facial emotion recognition: the code that more than one notebook needs."""

import os

# Before TensorFlow is imported: no log lines in notebooks, and the same numbers on every run of one CPU. oneDNN is off
# but where networks are really trained, which is three to four times as fast with it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1" if os.environ.get("HAR_PROFILE") == "full" else "0")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # a broken video is reported once, by the code that reads it
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**27))  # an image of a few KB could ask for gigabytes
