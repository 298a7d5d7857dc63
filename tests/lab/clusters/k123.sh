# shellcheck shell=bash disable=SC2034
# Kubernetes 1.23.17, the last minor version whose kubelet contains dockershim.

KUBERNETES=1.23.17
KUBERNETES_GO=debian_go      # as old as the one that upstream built this version with
KUBEADM_API=v1beta3
ETCD=bookworm                # 3.4 serves Kubernetes 1.23
ETCD_FROM=debian
CONTROL_PLANE=cp1
CONTROL_PLANE_RUNTIME=dockershim
WORKERS=(w1 w2)
WORKER_RUNTIME=dockershim
# Where the Kubernetes project's packages of that time put the kubelet's drop-in.
KUBELET_DROP_INS=etc/systemd/system/kubelet.service.d
SANDBOX_IMAGES=()            # beside kubeadm's
SERVICE_RANGE=10.96.0.0/12
NODE_NETWORK=10.123.0        # nodes get .11, .12, …; the bridge is .1
POD_NETWORK=10.124           # node n gets 10.124.n.0/24
