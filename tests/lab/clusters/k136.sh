# shellcheck shell=bash disable=SC2034
# Kubernetes 1.36.3: the control plane on containerd 2, the workers on Docker
# Engine behind cri-dockerd.

KUBERNETES=1.36.3
KUBERNETES_GO=modern_go
KUBEADM_API=v1beta4
ETCD=3.6.16
ETCD_FROM=module
CONTROL_PLANE=cp1
CONTROL_PLANE_RUNTIME=containerd
WORKERS=(w1 w2)
WORKER_RUNTIME=cri-dockerd
KUBELET_DROP_INS=lib/systemd/system/kubelet.service.d
SANDBOX_IMAGES=(registry.k8s.io/pause:3.10)   # cri-dockerd's own choice
SERVICE_RANGE=10.96.0.0/12
NODE_NETWORK=10.136.0
POD_NETWORK=10.137
