// A stand-in for cri-dockerd, which the Go module proxy does not have: the
// dockershim of Kubernetes 1.23, out of which cri-dockerd grew, served on a
// socket of its own. Flags, units, files and Docker labels are cri-dockerd's.
//
// It is built inside the module of Kubernetes; `parts.sh` puts it there.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/pflag"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1alpha2"
	"k8s.io/klog/v2"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
	"k8s.io/kubernetes/pkg/kubelet/cri/streaming"
	"k8s.io/kubernetes/pkg/kubelet/dockershim"
	"k8s.io/kubernetes/pkg/kubelet/util"
)

// The version that this stands in for; set when it is built.
var version = "unknown"

type options struct {
	endpoint      string
	root          string
	podCIDR       string
	sandboxImage  string
	streamingAddr string
	cgroups       string
	logLevel      string
	docker        dockershim.ClientConfig
	network       dockershim.NetworkPluginSettings
	printVersion  bool
}

func parse(arguments []string) (*options, error) {
	o := &options{}
	hairpin := kubeletconfig.HairpinNone
	flags := pflag.NewFlagSet("cri-dockerd", pflag.ContinueOnError)
	flags.StringVar(&o.endpoint, "container-runtime-endpoint", "unix:///var/run/cri-dockerd.sock", "where to serve CRI; fd:// is the socket that systemd passes")
	flags.StringVar(&o.root, "cri-dockerd-root-directory", "/var/lib/cri-dockerd", "where the checkpoints of sandboxes lie")
	flags.StringVar(&o.sandboxImage, "pod-infra-container-image", "registry.k8s.io/pause:3.10", "the image of sandboxes")
	flags.StringVar(&o.cgroups, "runtime-cgroups", "", "cgroup to put Docker Engine into")
	flags.StringVar(&o.docker.DockerEndpoint, "docker-endpoint", "unix:///var/run/docker.sock", "the socket of Docker Engine")
	flags.DurationVar(&o.docker.ImagePullProgressDeadline, "image-pull-progress-deadline", time.Minute, "a pull without progress ends after this time")
	flags.DurationVar(&o.docker.RuntimeRequestTimeout, "runtime-request-timeout", 0, "a request to Docker Engine ends after this time (0: the client's own)")
	flags.StringVar(&o.streamingAddr, "streaming-bind-addr", "localhost:0", "where to serve exec, attach and port forwarding")
	flags.StringVar(&o.podCIDR, "pod-cidr", "", "the addresses of pods, for kubenet")
	flags.StringVar(&o.network.PluginName, "network-plugin", "cni", "cni, kubenet or nothing")
	flags.StringVar(&o.network.PluginConfDir, "cni-conf-dir", "/etc/cni/net.d", "where CNI configurations lie")
	flags.StringVar(&o.network.PluginBinDirString, "cni-bin-dir", "/opt/cni/bin", "where CNI plugins lie; several are divided by commas")
	flags.StringVar(&o.network.PluginCacheDir, "cni-cache-dir", "/var/lib/cni/cache", "where CNI results are kept")
	flags.IntVar(&o.network.MTU, "network-plugin-mtu", 0, "the MTU for the network plugin")
	flags.StringVar((*string)(&o.network.HairpinMode), "hairpin-mode", hairpin, "promiscuous-bridge, hairpin-veth or none")
	flags.StringVar(&o.logLevel, "log-level", "info", "debug and trace say more")
	flags.Bool("ipv6-dual-stack", false, "without effect: this dockershim always tells all addresses")
	flags.BoolVar(&o.printVersion, "version", false, "print the version")
	if err := flags.Parse(arguments); err != nil {
		return nil, err
	}
	if rest := flags.Args(); len(rest) > 0 {
		return nil, fmt.Errorf("unknown command: %s", rest[0])
	}
	o.network.NonMasqueradeCIDR = "10.0.0.0/8"
	return o, nil
}

func main() {
	o, err := parse(os.Args[1:])
	if errors.Is(err, pflag.ErrHelp) {
		return
	}
	if err == nil && o.printVersion {
		fmt.Printf("cri-dockerd %s (stand-in made of dockershim 1.23)\n", version)
		return
	}
	if err == nil {
		err = run(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cri-dockerd:", err)
		os.Exit(1)
	}
}

// run serves until it is told to end. Containers do not notice its end.
func run(o *options) error {
	if o.logLevel == "debug" || o.logLevel == "trace" {
		var level klog.Level
		if err := level.Set("5"); err != nil {
			return err
		}
	}
	stream := streaming.DefaultConfig
	stream.Addr = o.streamingAddr
	if _, _, err := net.SplitHostPort(stream.Addr); err != nil {
		stream.Addr = net.JoinHostPort(stream.Addr, "0")
	}
	// Without a cgroup driver of its own it takes Docker's.
	service, err := dockershim.NewDockerService(&o.docker, o.sandboxImage, &stream, &o.network, o.cgroups, "", o.root)
	if err != nil {
		return err
	}
	_, err = service.UpdateRuntimeConfig(context.Background(), &runtimeapi.UpdateRuntimeConfigRequest{
		RuntimeConfig: &runtimeapi.RuntimeConfig{NetworkConfig: &runtimeapi.NetworkConfig{PodCidr: o.podCIDR}},
	})
	if err != nil {
		return err
	}
	if err := service.Start(); err != nil {
		return err
	}
	server, err := newServer(service, o.docker.DockerEndpoint)
	if err != nil {
		return err
	}
	listener, err := listen(o.endpoint)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		return err
	}
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGINT, syscall.SIGTERM)
	select {
	case err := <-ended:
		return err
	case <-told:
		return nil
	}
}

func listen(endpoint string) (net.Listener, error) {
	if !strings.HasPrefix(endpoint, "fd://") {
		return util.CreateListener(endpoint)
	}
	passed, err := activation.Listeners()
	if err != nil {
		return nil, err
	}
	if len(passed) != 1 {
		return nil, fmt.Errorf("%s wants one socket of systemd, and there are %d", endpoint, len(passed))
	}
	return passed[0], nil
}
