# shellcheck shell=bash disable=SC2034
# Kubernetes 1.23.17, the last minor version whose kubelet contains dockershim.

KUBERNETES=1.23.17
KUBERNETES_GO=1.19           # the Go that upstream built this version with
ETCD_PACKAGE=etcd-server     # Debian's 3.4 serves Kubernetes 1.23
CONTROL_PLANE=cp1
WORKERS=(w1 w2)
SERVICE_RANGE=10.96.0.0/12
NODE_NETWORK=10.123.0        # nodes get .11, .12, …; the bridge is .1
POD_NETWORK=10.124           # node n gets 10.124.n.0/24
