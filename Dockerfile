# syntax=docker/dockerfile:1
# landcover in a container, for CPUs or NVIDIA GPUs; it runs as a user without rights and takes `landcover`'s arguments.
#
#   docker build --tag landcover:cuda .
#   docker build --tag landcover:cpu --build-arg DEVICE=cpu --build-arg PIP_EXTRA_INDEX_URL=ADDRESS .
#   docker run --rm --gpus all --volume "$PWD:/work" --user "$(id -u):$(id -g)" landcover:cuda fit --config configs/unet.yaml
#   docker run --rm --entrypoint bash landcover:cpu scripts/demo.sh landcover      # the smoke test
#
# PyTorch for Linux on the package index brings CUDA with it, so both variants begin with the same small image: a GPU
# needs only the driver of the host. The wheels for CPUs, 5 GB smaller, are in an index of PyTorch's own: its address,
# which PyTorch's page on installing tells, goes into PIP_EXTRA_INDEX_URL.
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS builder
ARG DEVICE=cuda
ARG PIP_EXTRA_INDEX_URL=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
WORKDIR /build
RUN python -m venv /opt/landcover
COPY constraints.txt pyproject.toml ./
# The dependencies are a layer of their own, which a change of the code leaves as it is. CPU wheels need no CUDA libraries.
RUN if [[ $DEVICE == cpu ]]; then \
      grep -vE '^(nvidia|cuda|triton)' constraints.txt > pins.txt; \
    elif [[ $DEVICE == cuda ]]; then \
      cp constraints.txt pins.txt; \
    else \
      echo "DEVICE must be cpu or cuda, got $DEVICE" >&2; exit 1; \
    fi
RUN /opt/landcover/bin/python -c \
      'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; x = p["optional-dependencies"]; print(*p["dependencies"], *x["openvino"], *x["onnx"], *x["mlflow"], sep="\n")' \
      > requirements.txt \
 && /opt/landcover/bin/pip install --constraint pins.txt --requirement requirements.txt 'setuptools>=77'
RUN /opt/landcover/bin/python -c \
      'import sys, torch; sys.exit(0 if (torch.version.cuda is None) == (sys.argv[1] == "cpu") else "this torch is not for " + sys.argv[1] + ": give the index of its wheels as PIP_EXTRA_INDEX_URL")' \
      "$DEVICE"
COPY README.md LICENSE MANIFEST.in ./
COPY landcover_plugin landcover_plugin
RUN /opt/landcover/bin/pip install --no-deps --no-build-isolation . \
 && /opt/landcover/bin/landcover --version

FROM python:${PYTHON}-slim AS runtime
# What OpenMP of torch and the wheels of GDAL link against, beside the C library. Debian drops old builds: no versions.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libgomp1 libexpat1 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 10001 landcover \
 && install --directory --owner landcover --mode 1777 /work /cache
COPY --from=builder /opt/landcover /opt/landcover
COPY configs /work/configs
COPY scripts/demo.sh /work/scripts/demo.sh
# Any user may be given (--user): whoever it is has a name, and may write to the caches.
ENV PATH=/opt/landcover/bin:$PATH \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HOME=/cache USER=landcover XDG_CACHE_HOME=/cache NUMBA_CACHE_DIR=/cache/numba MPLCONFIGDIR=/cache/matplotlib \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001
WORKDIR /work
ENTRYPOINT ["landcover"]
CMD ["--help"]
