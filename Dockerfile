# mm for Cloud TPU: docker build -t REGION-docker.pkg.dev/PROJECT/REPOSITORY/mm . && docker push ...
FROM python:3.11-slim
RUN pip install --no-cache-dir uv
WORKDIR /mm
COPY . .
RUN uv pip install --system --no-cache --constraint requirements.lock --editable ".[tpu,gcs]"
