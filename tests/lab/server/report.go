package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"
)

// report writes what a process sees of its container, a fact on each line: NAME VALUE.
// Names of pods and containers are left out, so that two reports of pods of one
// specification differ where their runtimes do.
func report(w io.Writer) {
	facts := map[string]string{}
	for _, read := range []func(map[string]string){limits, status, settings, mounts, files, devices, network, process} {
		read(facts)
	}
	names := make([]string, 0, len(facts))
	for name := range facts {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		fmt.Fprintln(w, name, facts[name])
	}
}

func lines(path string) []string {
	text, err := os.ReadFile(path)
	if err != nil {
		return []string{"(" + err.Error() + ")"}
	}
	return strings.Split(strings.TrimRight(string(text), "\n\x00"), "\n")
}

// limits: the soft and the hard one.
func limits(facts map[string]string) {
	for _, line := range lines("/proc/self/limits")[1:] {
		if len(line) < 26 {
			continue
		}
		fields := strings.Fields(line[26:])
		facts["limit."+strings.ReplaceAll(strings.TrimSpace(line[:26]), " ", "-")] = strings.Join(fields[:2], ":")
	}
}

func status(facts map[string]string) {
	for _, line := range lines("/proc/self/status") {
		name, value, _ := strings.Cut(line, ":")
		switch name {
		case "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters", "Umask", "Uid", "Gid", "Groups", "NSpid":
			facts["status."+name] = strings.Join(strings.Fields(value), " ")
		}
	}
}

func settings(facts map[string]string) {
	for _, name := range []string{
		"kernel/domainname", "kernel/msgmax", "kernel/sem", "kernel/shmall", "kernel/shmmax", "kernel/shm_rmid_forced",
		"net/core/somaxconn", "net/ipv4/conf/all/rp_filter", "net/ipv4/ip_forward", "net/ipv4/ip_local_port_range",
		"net/ipv4/ip_unprivileged_port_start", "net/ipv4/ping_group_range", "net/ipv4/tcp_keepalive_time",
		"net/ipv6/conf/all/disable_ipv6", "net/ipv6/conf/default/disable_ipv6", "net/ipv6/conf/lo/disable_ipv6",
	} {
		facts["sysctl."+name] = strings.Join(strings.Fields(strings.Join(lines("/proc/sys/"+name), " ")), " ")
	}
}

// mounts: the file system and the options of each; a masked path is one of them.
func mounts(facts map[string]string) {
	for _, line := range lines("/proc/self/mountinfo") {
		before, after, found := strings.Cut(line, " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if !found || len(fields) < 6 || len(kind) < 3 {
			continue
		}
		options := strings.Split(fields[5], ",")
		sort.Strings(options)
		value := kind[0] + " " + strings.Join(options, ",")
		if kind[0] == "tmpfs" {
			for _, option := range strings.Split(kind[2], ",") {
				if strings.HasPrefix(option, "size=") || strings.HasPrefix(option, "mode=") {
					value += " " + option
				}
			}
		}
		facts["mount."+fields[4]] = value
	}
	var shm syscall.Statfs_t
	if syscall.Statfs("/dev/shm", &shm) == nil {
		facts["shm.bytes"] = fmt.Sprint(shm.Blocks * uint64(shm.Bsize))
	}
}

// files that the kubelet or the runtime writes; what is the pod's own in them becomes a word.
func files(facts map[string]string) {
	own, _ := os.Hostname()
	words := strings.NewReplacer(own, "HOSTNAME", address(), "ADDRESS", "\t", " ")
	for _, path := range []string{"/etc/hosts", "/etc/resolv.conf", "/etc/hostname", "/etc/localtime", "/etc/timezone", "/etc/mtab"} {
		if path == "/etc/localtime" || path == "/etc/mtab" {
			to, err := os.Readlink(path)
			facts["file."+path] = fmt.Sprint(to, err == nil)
			continue
		}
		var kept []string
		for _, line := range lines(path) {
			if line != "" && !strings.HasPrefix(line, "#") {
				kept = append(kept, words.Replace(line))
			}
		}
		facts["file."+path] = strings.Join(kept, " | ")
	}
}

func devices(facts map[string]string) {
	found, _ := filepath.Glob("/dev/*")
	sort.Strings(found)
	facts["devices"] = strings.Join(found, " ")
}

func address() string {
	addresses, _ := net.InterfaceAddrs()
	for _, address := range addresses {
		if ip, ok := address.(*net.IPNet); ok && !ip.IP.IsLoopback() && ip.IP.To4() != nil {
			return ip.IP.String()
		}
	}
	return "(none)"
}

func network(facts map[string]string) {
	interfaces, _ := net.Interfaces()
	for _, each := range interfaces {
		addresses, _ := each.Addrs()
		var kinds []string
		for _, address := range addresses {
			ip, ok := address.(*net.IPNet)
			switch {
			case !ok:
			case ip.IP.To4() != nil:
				kinds = append(kinds, "IPv4")
			case ip.IP.IsLinkLocalUnicast():
				kinds = append(kinds, "link-local")
			default:
				kinds = append(kinds, "IPv6")
			}
		}
		sort.Strings(kinds)
		facts["interface."+each.Name] = fmt.Sprintf("mtu %d %s", each.MTU, strings.Join(kinds, " "))
	}
	facts["can.listen-on-a-low-port"] = tried(func() error {
		listener, err := net.Listen("tcp4", ":81")
		if err == nil {
			listener.Close()
		}
		return err
	})
	facts["can.ping"] = tried(func() error {
		socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, syscall.IPPROTO_ICMP)
		if err == nil {
			syscall.Close(socket)
		}
		return err
	})
	facts["can.listen-on-IPv6"] = tried(func() error {
		listener, err := net.Listen("tcp6", "[::1]:0")
		if err == nil {
			listener.Close()
		}
		return err
	})
}

func tried(what func() error) string {
	if err := what(); err != nil {
		return "no: " + err.Error()
	}
	return "yes"
}

func process(facts map[string]string) {
	facts["pid"] = fmt.Sprint(os.Getpid())
	facts["directory"], _ = os.Getwd()
	facts["oom-score-adj"] = lines("/proc/self/oom_score_adj")[0]
	facts["apparmor"] = lines("/proc/self/attr/current")[0]
	facts["selinux"] = lines("/proc/self/attr/exec")[0]
	zone, offset := time.Now().Zone()
	facts["timezone"] = fmt.Sprint(zone, " ", offset)
	var names []string
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		// One for each Service that was there when the pod was made.
		if !strings.Contains(name, "_SERVICE_") && !strings.Contains(name, "_PORT") {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	facts["environment"] = strings.Join(names, " ")
	for _, descriptor := range []string{"0", "1", "2"} {
		to, _ := os.Readlink("/proc/self/fd/" + descriptor)
		kind, _, _ := strings.Cut(to, ":[")
		facts["descriptor."+descriptor] = kind
	}
	for _, line := range lines("/proc/self/cgroup") {
		fields := strings.SplitN(line, ":", 3)
		if len(fields) == 3 && (fields[1] == "memory" || fields[1] == "" || fields[1] == "pids") {
			facts["cgroup."+fields[1]] = cgroup(fields[2])
		}
	}
}

// cgroup: its place without the names of the pod and the container.
func cgroup(path string) string {
	parts := strings.Split(path, "/")
	for at, part := range parts {
		if before, _, found := strings.Cut(part, "-pod"); found {
			parts[at] = before + "-POD"
			continue
		}
		if len(part) >= 64 {
			parts[at] = "CONTAINER"
			for _, prefix := range []string{"docker-", "cri-containerd-", "crio-"} {
				if strings.HasPrefix(part, prefix) {
					parts[at] = prefix + "CONTAINER"
				}
			}
		}
	}
	return strings.Join(parts, "/")
}
