"""Google Kubernetes Engine: a JobSet manifest for kubectl, or xpk's command, which makes its own."""

from typing import Any

import yaml

from mm.errors import UserError
from mm.launch.job import RESTARTS, Job, shown

PORT = 8471  # of libtpu
COORDINATOR = 8482  # of JAX


def manifest(job: Job) -> dict[str, Any]:
    """A JobSet: one job per slice, one pod per host, all started again together when one is lost."""
    tpu = {"google.com/tpu": job.slice.chips // job.slice.hosts}
    selector = {
        "cloud.google.com/gke-tpu-accelerator": job.slice.chip.node,
        "cloud.google.com/gke-tpu-topology": job.slice.shape,
    }
    container: dict[str, Any] = {
        "name": "mm",
        "image": job.image,
        "command": job.command,
        "ports": [{"containerPort": PORT}, {"containerPort": COORDINATOR}],
        "resources": {"requests": tpu, "limits": tpu},
        "securityContext": {"privileged": True},
    }
    if job.secrets:
        container["env"] = [
            {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": variable}}}
            for variable, secret in job.secrets
        ]
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "hostNetwork": True,
        "dnsPolicy": "ClusterFirstWithHostNet",
        "terminationGracePeriodSeconds": 60,  # the time to save
        "nodeSelector": selector,
        "containers": [container],
    }
    if job.spot:
        selector["cloud.google.com/gke-spot"] = "true"
        taint = {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true"}
        pod["tolerations"] = [taint | {"effect": "NoSchedule"}]
    exclusive = {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"}
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": job.name, "annotations": exclusive},
        "spec": {
            "failurePolicy": {"maxRestarts": RESTARTS if job.spot else 3},
            "replicatedJobs": [
                {
                    "name": "slice",
                    "replicas": job.slices,
                    "template": {
                        "spec": {
                            "parallelism": job.slice.hosts,
                            "completions": job.slice.hosts,
                            "backoffLimit": 0,
                            "template": {"spec": pod},
                        }
                    },
                }
            ],
        },
    }


def text(job: Job) -> str:
    """The manifest as YAML."""
    return yaml.safe_dump(manifest(job), sort_keys=False)


def xpk(job: Job, cluster: str, project: str, zone: str) -> list[str]:
    """xpk's command. Raises UserError for secrets, which it would put on a command line."""
    if job.secrets:
        raise UserError("--secret: xpk has no place for secrets; use --on gke")
    return [
        "xpk", "workload", "create", f"--cluster={cluster}", f"--workload={job.name}", f"--zone={zone}",
        *([f"--project={project}"] if project else []), f"--tpu-type={job.slice.accelerator_type}",
        f"--num-slices={job.slices}", f"--docker-image={job.image}", f"--command={shown(job.command)}",
        f"--max-restarts={RESTARTS if job.spot else 3}",
    ]  # fmt: skip
