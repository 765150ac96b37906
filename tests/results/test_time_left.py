"""What a video still takes: with its decoding, or not a word."""

import pytest

from videogen.results.progress import Progress, Report, StageStarted, VideoStarted
from videogen.results.time_left import TimeLeft


class Clock:
    """An estimate that hears of stages, on a clock of their seconds."""

    def __init__(self):
        self.now, self.time_left = 1000.0, TimeLeft()

    def hear(self, event, place):
        self.time_left.take(Report(time=self.now, index=1, segment=place[0], segments=place[1], event=event))

    def start(self, size=(48, 32), num_frames=8):
        about = {"videos": 1, "failed": 0, "seconds_left": None, "seed": 7, "output": "a.mp4"}
        width, height = size
        self.hear(VideoStarted(**about, width=width, height=height, num_frames=num_frames), (0, 1))

    def stage(self, name, total, seconds, place=(1, 1)):
        """Let a stage go on in steps of so many seconds; returns what is said to be left after each."""
        self.hear(StageStarted(stage=name, about="", total=total, unit=""), place)
        said, began = [], self.now
        for done in range(1, total + 1):
            self.now += seconds
            left = (self.now - began) / done * (total - done)
            about = {"stage": name, "about": "", "done": done, "total": total, "unit": ""}
            self.hear(Progress(**about, seconds_left=left), place)
            said.append(self.time_left.seconds(self.now))
        return said


def test_nothing_is_said_before_a_decoding_was_measured():
    clock = Clock()
    clock.start()
    assert clock.stage("denoise", 4, 10.0) == [None] * 4
    assert clock.stage("decode", 4, 2.0) == [6.0, 4.0, 2.0, 0.0]


def test_steps_are_followed_by_the_decoding_that_was_measured():
    clock = Clock()
    clock.start()
    clock.stage("denoise", 4, 10.0)
    clock.stage("decode", 8, 1.0)
    clock.start(size=(96, 32))
    assert clock.time_left.seconds(clock.now) is None
    assert clock.stage("load", 2, 1.0) == [None, None]
    assert clock.stage("denoise", 4, 10.0) == [46.0, 36.0, 26.0, 16.0]  # of twice as many pixels
    assert clock.stage("decode", 8, 2.0)[::4] == [14.0, 6.0], "no jump where decoding begins"


def test_segments_that_follow_are_denoised_and_decoded_too():
    clock = Clock()
    clock.start()
    assert clock.stage("denoise", 2, 5.0, (1, 2)) == [None, None]
    assert clock.stage("decode", 4, 1.0, (1, 2)) == [3.0 + 14, 2.0 + 14, 1.0 + 14, 14.0]
    assert clock.stage("denoise", 2, 5.0, (2, 2)) == [9.0, 4.0]
    assert clock.time_left.seconds(clock.now + 1) == pytest.approx(3.0)
    assert clock.time_left.seconds(clock.now + 100) == 0.0
