"""What Linux says of devices."""

from videogen.planning import local_devices


def test_names_of_gpus(tmp_path, monkeypatch):
    monkeypatch.setattr(local_devices, "GPU_FILES", tmp_path)
    assert local_devices.gpu_names() == set()
    for place in ("0000:18:00.0", "1"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "information").write_text("Model: \t\t NVIDIA H200\nIRQ:  \t 44\n")
    assert local_devices.gpu_names() == {"NVIDIA H200"}
