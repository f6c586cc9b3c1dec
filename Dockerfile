# One image for every machine: a single server, and the head, decode and GPU nodes of a cluster.
#
#   docker build -t zsad:0.1.0 .
#   docker run --rm --gpus all --shm-size 8g -v /data:/data zsad:0.1.0 python \
#       jobs/score_dataset.py --input /data/photos --output /data/results --checkpoint tiny
#
# The base is plain Python, not rayproject/ray: what pip installs below is then exactly the set that
# the tests run with, and no second set (Ray's image brings conda and pins of its own) can win over
# it. PyTorch's wheels bring the CUDA libraries; the machine brings the driver, of CUDA 13 (580 or
# newer), and NVIDIA's container toolkit. On a machine without a GPU the same image uses the CPU.
FROM python:3.11-slim-bookworm

# The autoscaler on the head reaches new machines by ssh; Ray copies files in and out with rsync.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends openssh-client rsync \
    && rm -rf /var/lib/apt/lists/*

# Nothing runs as root. /models is where weights are mounted or downloaded: there are none in here,
# but for the small embedded model.
RUN useradd --create-home --uid 1000 zsad && install --directory --owner zsad /models
# Ray reads HOME from the image to find the place of its own files; NVIDIA's toolkit reads the two
# of its name; nothing is reported to anyone.
ENV HOME=/home/zsad \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    RAY_USAGE_STATS_ENABLED=0

# The libraries are a layer of their own: 7 GB that change only when these two files do.
WORKDIR /opt/zsad
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
print(*project['dependencies'], *project['optional-dependencies']['aws'], sep='\n')" \
        > /tmp/requirements.txt \
    && pip install --no-cache-dir --constraint constraints.txt --requirement /tmp/requirements.txt \
    && rm /tmp/requirements.txt

# The program lies where its commands expect it, `python jobs/score_dataset.py`, and importable from
# everywhere: an editable install is one copy that serves both.
COPY README.md LICENSE ./
COPY zsad/ zsad/
COPY io_adapters/ io_adapters/
COPY jobs/ jobs/
RUN pip install --no-cache-dir --no-deps --editable . \
    && python -m compileall -q zsad io_adapters jobs

USER zsad
# No ENTRYPOINT: `ray up` and KubeRay start a shell in the image, and with it Ray.
CMD ["python", "jobs/score_dataset.py", "--help"]
