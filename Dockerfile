# align in a container: an ordinary user, no token inside, runs and fetched models in the volume /project.
#   docker build -t align .
#   docker run --rm -it -v align-project:/project align run configs/quickstart.yaml
# With a GPU (torch's CUDA wheels bring their own runtime; the host needs its driver and the container toolkit):
#   docker build -t align-cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126 .
ARG BASE=python:3.12-slim

FROM ${BASE} AS wheel
WORKDIR /source
RUN pip install --no-cache-dir build
COPY pyproject.toml setup.py README.md LICENSE ./
COPY pipeline pipeline
COPY configs configs
COPY data data
RUN python -m build --wheel --outdir /dist

FROM ${BASE}
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=serve,agents
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 HF_HOME=/project/.cache/huggingface
COPY constraints.txt /tmp/
RUN pip install --extra-index-url "${TORCH_INDEX}" -c /tmp/constraints.txt torch
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    pip install -c /tmp/constraints.txt "$(ls /dist/*.whl)[${EXTRAS}]"
RUN useradd --create-home --uid 1000 align && install -d -o align -g align /project
USER align
WORKDIR /project
RUN align init
VOLUME /project
EXPOSE 8000
ENTRYPOINT ["align"]
CMD ["--help"]
