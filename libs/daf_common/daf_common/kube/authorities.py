"""Certificate authorities that the pods of workloads trust beside the public ones. Pure.

What TLS libraries are told by variables they trust in the place of the public authorities, so that an init container
writes both to one file. The chart does the same with the pods of services.
"""

from __future__ import annotations

from daf_common.kube.api import Object
from daf_common.kube.settings import CertificateAuthorities

BUNDLE = "/etc/daf/authorities/ca.crt"
VARIABLES = ("SSL_CERT_FILE", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE")
"""Of OpenSSL, httpx, uv and what is written in Rust; of boto3; of requests, and so of pip and MLflow."""

_PUBLIC = "/etc/ssl/certs/ca-certificates.crt"
_GIVEN = "/run/daf/given-authorities"
_VOLUME = "authorities"


def trusting(pod: Object, authorities: CertificateAuthorities) -> Object:
    """A pod's template, of one container, that trusts them as well."""
    spec = pod["spec"]
    (container,) = spec["containers"]
    directory = BUNDLE.rpartition("/")[0]
    gathering: Object = {
        **{key: container[key] for key in ("image", "imagePullPolicy", "securityContext")},
        "name": "authorities",
        "command": ["awk", f'{{ print >"{BUNDLE}" }}', _PUBLIC, f"{_GIVEN}/ca.crt"],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
        "volumeMounts": [
            {"name": _VOLUME, "mountPath": directory},
            {"name": f"given-{_VOLUME}", "mountPath": _GIVEN, "readOnly": True},
        ],
    }
    knowing: Object = {
        **container,
        "env": [*container["env"], *({"name": name, "value": BUNDLE} for name in VARIABLES)],
        "volumeMounts": [*container["volumeMounts"], {"name": _VOLUME, "mountPath": directory, "readOnly": True}],
    }
    given = {"name": authorities.config_map, "items": [{"key": authorities.key, "path": "ca.crt"}]}
    volumes = [
        {"name": _VOLUME, "emptyDir": {"sizeLimit": "8Mi"}},
        {"name": f"given-{_VOLUME}", "configMap": given},
    ]
    return {
        **pod,
        "spec": {
            **spec,
            "initContainers": [gathering],
            "containers": [knowing],
            "volumes": [*spec["volumes"], *volumes],
        },
    }
