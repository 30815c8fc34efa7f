# One image per service: `docker build --target gateway .`, `--target inference .`, `--target comfy-bridge .`,
# `--target dreams .` or `--target monitor .`
#
# TORCH_INDEX is where PyTorch comes from beside PyPI. Without it that is PyPI's own build, for NVIDIA GPUs on
# x86-64 Linux; PyTorch's site names its index of builds for the CPU alone, which make a far smaller image.

ARG PYTHON_IMAGE=python:3.11-slim-bookworm

# --- build: a virtual environment that the final image takes over whole -------------------------------------
FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /venv
ENV PATH=/venv/bin:$PATH
WORKDIR /src
COPY constraints.txt ./

FROM build AS build-gateway
COPY libs libs
COPY services/gateway services/gateway
RUN pip install -c constraints.txt ./libs/protocol ./libs/runtime ./libs/jobs ./libs/storage ./services/gateway

FROM build AS build-inference
ARG TORCH_INDEX=
# PyTorch first: it is the largest layer, and changes least.
RUN pip install -c constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} torch
COPY libs libs
COPY services/inference services/inference
RUN pip install -c constraints.txt ./libs/protocol ./libs/runtime ./libs/jobs ./libs/storage ./libs/worker ./services/inference

FROM build AS build-comfy-bridge
COPY libs libs
COPY services/comfy-bridge services/comfy-bridge
RUN pip install -c constraints.txt ./libs/protocol ./libs/runtime ./libs/jobs ./libs/storage ./libs/worker ./services/comfy-bridge

FROM build AS build-dreams
ARG TORCH_INDEX=
# PyTorch first: it is the largest layer, and changes least.
RUN pip install -c constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} torch
COPY libs libs
COPY services/dreams services/dreams
RUN pip install -c constraints.txt ./libs/protocol ./libs/runtime ./libs/jobs ./libs/storage ./services/dreams

FROM build AS build-monitor
COPY libs libs
COPY services/monitor services/monitor
RUN pip install -c constraints.txt ./libs/protocol ./libs/runtime ./libs/jobs ./libs/storage ./services/monitor

# --- run: no compiler, no pip cache, no root ------------------------------------------------------------------
FROM ${PYTHON_IMAGE} AS run
RUN useradd --uid 10001 --no-create-home --home-dir /tmp reverie \
    && install -d -o reverie -g reverie /data /data/storage /data/huggingface
COPY deploy/probe.py /probe.py
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER reverie
WORKDIR /tmp

FROM run AS gateway
COPY --from=build-gateway /venv /venv
EXPOSE 4200
ENTRYPOINT ["python", "-m", "reverie_gateway"]

FROM run AS inference
ENV HF_HOME=/data/huggingface
COPY --from=build-inference /venv /venv
COPY models/builtin /models/builtin
EXPOSE 4201
ENTRYPOINT ["python", "-m", "reverie_inference"]

FROM run AS comfy-bridge
COPY --from=build-comfy-bridge /venv /venv
EXPOSE 4204
ENTRYPOINT ["python", "-m", "reverie_comfy_bridge"]

FROM run AS dreams
ENV HF_HOME=/data/huggingface REVERIE_DREAMS__BUILTIN_SCORER=/models/builtin/scorer
COPY --from=build-dreams /venv /venv
COPY models/builtin/scorer /models/builtin/scorer
EXPOSE 4205
ENTRYPOINT ["python", "-m", "reverie_dreams"]

FROM run AS monitor
COPY --from=build-monitor /venv /venv
EXPOSE 4203
ENTRYPOINT ["python", "-m", "reverie_monitor"]
