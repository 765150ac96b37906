# docker build -t videogen .
# docker run --rm --gpus all -v videogen-models:/models -v "$PWD:/work" --user "$(id -u):$(id -g)" videogen --task_type ...
# The packages of torch bring the CUDA libraries; the base has what the driver needs.
FROM nvidia/cuda:12.8.1-base-ubuntu24.04

# A compiler and Python's headers are for --compile. Ubuntu keeps no old versions to pin.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

# Models and compiled code outlive the container; any user may run it.
ENV HF_HOME=/models \
    VIDEOGEN_CACHE=/models/videogen \
    TORCHINDUCTOR_CACHE_DIR=/models/compiled \
    HOME=/tmp \
    PATH=/opt/videogen/bin:$PATH
RUN mkdir -p /models /work && chmod 1777 /models /work

WORKDIR /src
COPY requirements.txt dependencies.txt ./
RUN python3 -m venv /opt/videogen \
    && pip install --no-cache-dir "$(grep '^torch==' requirements.txt)" \
    && pip install --no-cache-dir -r requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY configs configs
COPY videogen videogen
RUN pip install --no-cache-dir --no-deps . && rm -rf /src/build

USER 10001
# What is installed, in the log of the build; a package that does not import is named.
RUN videogen --env -v && videogen --list_tasks

WORKDIR /work
VOLUME /models
ENTRYPOINT ["videogen"]
CMD ["--help"]
