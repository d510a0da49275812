# The command in a container, for the CPU:
#   docker build -t quantum-diffusion .
#   docker run --rm -v "$PWD:/work" quantum-diffusion compile toffoli
# and for CUDA, on an image with the driver's libraries and Python 3.11 to 3.13:
#   docker build -t quantum-diffusion:cuda --build-arg BASE=nvidia/cuda:13.0.1-runtime-ubuntu24.04 --build-arg TORCH_INDEX= .
#   docker run --rm --gpus all -v "$PWD:/work" quantum-diffusion:cuda doctor
ARG BASE=python:3.11-slim
FROM ${BASE}

# Where torch comes from: the CPU build by default; empty takes the CUDA build that PyPI offers.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

RUN if ! command -v python3 >/dev/null || ! python3 -m venv --help >/dev/null 2>&1; then \
      apt-get update && apt-get install -y --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/*; \
    fi

WORKDIR /quantum_diffusion
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY conf conf
COPY src src
RUN python3 -m venv /venv \
    && /venv/bin/pip install --no-cache-dir -c constraints.txt ${TORCH_INDEX:+--index-url ${TORCH_INDEX}} torch \
    && /venv/bin/pip install --no-cache-dir -c constraints.txt .
ENV PATH=/venv/bin:$PATH

# Nothing runs as root; what it writes belongs to whoever runs it (docker run --user "$(id -u):$(id -g)").
RUN mkdir -p /work && chmod 1777 /work
USER 1000:1000
ENV HOME=/tmp
WORKDIR /work
ENTRYPOINT ["quantum-diffusion"]
CMD ["--help"]
