package main

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"sync"
	"time"

	dockertypes "github.com/docker/docker/api/types"
	docker "github.com/docker/docker/client"
	"google.golang.org/grpc"
	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1alpha2"
	"k8s.io/kubernetes/pkg/kubelet/dockershim"
)

// Requests and answers may be as large as the kubelet's and cri-dockerd's.
const maxMessage = 16 << 20

// shim is dockershim with what kubelets after 1.23 expect.
type shim struct {
	dockershim.DockerService
	docker *docker.Client
	info   dockertypes.Info
}

// newServer serves CRI as v1alpha2 and as v1. Dockershim knows only the types of
// v1alpha2, but on the wire both are the same.
func newServer(service dockershim.DockerService, endpoint string) (*grpc.Server, error) {
	client, err := docker.NewClientWithOpts(docker.WithHost(endpoint), docker.WithAPIVersionNegotiation())
	if err != nil {
		return nil, err
	}
	info, err := client.Info(context.Background())
	if err != nil {
		return nil, err
	}
	s := &shim{service, client, info}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage))
	runtime := append(methods((*runtimeapi.RuntimeServiceServer)(nil), s), method(reflect.ValueOf(s.RuntimeConfig), "RuntimeConfig"))
	image := methods((*runtimeapi.ImageServiceServer)(nil), s)
	for _, api := range []string{"runtime.v1alpha2", "runtime.v1"} {
		server.RegisterService(&grpc.ServiceDesc{ServiceName: api + ".RuntimeService", HandlerType: (*interface{})(nil), Methods: runtime}, s)
		server.RegisterService(&grpc.ServiceDesc{ServiceName: api + ".ImageService", HandlerType: (*interface{})(nil), Methods: image}, s)
	}
	return server, nil
}

// methods describes all methods of the interface that the nil pointer points to,
// as the generated code does; that description is not exported.
func methods(pointer interface{}, s *shim) []grpc.MethodDesc {
	var all []grpc.MethodDesc
	calls := reflect.TypeOf(pointer).Elem()
	for i := 0; i < calls.NumMethod(); i++ {
		name := calls.Method(i).Name
		all = append(all, method(reflect.ValueOf(s).MethodByName(name), name))
	}
	return all
}

func method(call reflect.Value, name string) grpc.MethodDesc {
	request := call.Type().In(1).Elem()
	return grpc.MethodDesc{
		MethodName: name,
		Handler: func(_ interface{}, ctx context.Context, decode func(interface{}) error, _ grpc.UnaryServerInterceptor) (interface{}, error) {
			in := reflect.New(request)
			if err := decode(in.Interface()); err != nil {
				return nil, err
			}
			out := call.Call([]reflect.Value{reflect.ValueOf(ctx), in})
			err, _ := out[1].Interface().(error)
			return out[0].Interface(), err
		},
	}
}

// Version names CRI's version, and not that of Docker's API.
func (s *shim) Version(ctx context.Context, r *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	answer, err := s.DockerService.Version(ctx, r)
	if err == nil {
		answer.RuntimeApiVersion = "v1"
	}
	return answer, err
}

// CreateContainer reads the seccomp profile where kubelets have put it since 1.25.
func (s *shim) CreateContainer(ctx context.Context, r *runtimeapi.CreateContainerRequest) (*runtimeapi.CreateContainerResponse, error) {
	if security := r.GetConfig().GetLinux().GetSecurityContext(); security.GetSeccomp() != nil {
		switch profile := security.Seccomp; profile.ProfileType {
		case runtimeapi.SecurityProfile_RuntimeDefault:
			security.SeccompProfilePath = v1.SeccompProfileRuntimeDefault
		case runtimeapi.SecurityProfile_Unconfined:
			security.SeccompProfilePath = v1.SeccompProfileNameUnconfined
		case runtimeapi.SecurityProfile_Localhost:
			security.SeccompProfilePath = v1.SeccompLocalhostProfileNamePrefix + profile.LocalhostRef
		}
	}
	return s.DockerService.CreateContainer(ctx, r)
}

// ImageFsInfo gives its time in nanoseconds, as CRI demands.
func (s *shim) ImageFsInfo(ctx context.Context, r *runtimeapi.ImageFsInfoRequest) (*runtimeapi.ImageFsInfoResponse, error) {
	answer, err := s.DockerService.ImageFsInfo(ctx, r)
	if err != nil {
		return nil, err
	}
	for _, usage := range answer.ImageFilesystems {
		usage.Timestamp = time.Now().UnixNano()
	}
	return answer, nil
}

// --- The cgroup driver ------------------------------------------------------

// The messages of a call that kubelets know since 1.28, and v1alpha2 never did.
type runtimeConfigRequest struct{}

type runtimeConfigResponse struct {
	Linux *linuxRuntimeConfiguration `protobuf:"bytes,1,opt,name=linux,proto3"`
}

type linuxRuntimeConfiguration struct {
	CgroupDriver int32 `protobuf:"varint,1,opt,name=cgroup_driver,proto3"`
}

const (
	driverSystemd  = 0
	driverCgroupfs = 1
)

func (m *runtimeConfigRequest) Reset()         { *m = runtimeConfigRequest{} }
func (m *runtimeConfigRequest) String() string { return "" }
func (*runtimeConfigRequest) ProtoMessage()    {}

func (m *runtimeConfigResponse) Reset()         { *m = runtimeConfigResponse{} }
func (m *runtimeConfigResponse) String() string { return m.Linux.String() }
func (*runtimeConfigResponse) ProtoMessage()    {}

func (m *linuxRuntimeConfiguration) Reset() { *m = linuxRuntimeConfiguration{} }
func (m *linuxRuntimeConfiguration) String() string {
	return fmt.Sprint("cgroup driver ", m.CgroupDriver)
}
func (*linuxRuntimeConfiguration) ProtoMessage() {}

// RuntimeConfig tells the kubelet Docker's cgroup driver.
func (s *shim) RuntimeConfig(context.Context, *runtimeConfigRequest) (*runtimeConfigResponse, error) {
	driver := int32(driverCgroupfs)
	if s.info.CgroupDriver == "systemd" {
		driver = driverSystemd
	}
	return &runtimeConfigResponse{Linux: &linuxRuntimeConfiguration{CgroupDriver: driver}}, nil
}

// --- Statistics -------------------------------------------------------------

// ContainerStats tells one container's usage.
func (s *shim) ContainerStats(ctx context.Context, r *runtimeapi.ContainerStatsRequest) (*runtimeapi.ContainerStatsResponse, error) {
	found, err := s.ListContainerStats(ctx, &runtimeapi.ListContainerStatsRequest{
		Filter: &runtimeapi.ContainerStatsFilter{Id: r.ContainerId},
	})
	if err != nil {
		return nil, err
	}
	if len(found.Stats) != 1 {
		return nil, fmt.Errorf("no container with the id %s, or it is not running", r.ContainerId)
	}
	return &runtimeapi.ContainerStatsResponse{Stats: found.Stats[0]}, nil
}

// ListContainerStats asks Docker for all of them at once. Dockershim itself leaves
// the memory out, which cAdvisor measured for the kubelet at that time.
func (s *shim) ListContainerStats(ctx context.Context, r *runtimeapi.ListContainerStatsRequest) (*runtimeapi.ListContainerStatsResponse, error) {
	wanted := r.GetFilter()
	list, err := s.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{
		Id: wanted.GetId(), PodSandboxId: wanted.GetPodSandboxId(), LabelSelector: wanted.GetLabelSelector(),
		State: &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING},
	}})
	if err != nil {
		return nil, err
	}
	var wait sync.WaitGroup
	stats := make([]*runtimeapi.ContainerStats, len(list.Containers))
	for i, container := range list.Containers {
		wait.Add(1)
		go func(i int, container *runtimeapi.Container) {
			defer wait.Done()
			// One that has ended meanwhile has no statistics.
			stats[i], _ = s.stats(ctx, container)
		}(i, container)
	}
	wait.Wait()
	answer := &runtimeapi.ListContainerStatsResponse{}
	for _, one := range stats {
		if one != nil {
			answer.Stats = append(answer.Stats, one)
		}
	}
	return answer, nil
}

func (s *shim) stats(ctx context.Context, container *runtimeapi.Container) (*runtimeapi.ContainerStats, error) {
	// One measurement; otherwise Docker waits a second for the next one.
	answer, err := s.docker.ContainerStatsOneShot(ctx, container.Id)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	var measured dockertypes.StatsJSON
	if err := json.NewDecoder(answer.Body).Decode(&measured); err != nil {
		return nil, err
	}
	described, _, err := s.docker.ContainerInspectWithRaw(ctx, container.Id, true)
	if err != nil {
		return nil, err
	}
	now := time.Now().UnixNano()
	stats := &runtimeapi.ContainerStats{
		Attributes: &runtimeapi.ContainerAttributes{
			Id: container.Id, Metadata: container.Metadata, Labels: container.Labels, Annotations: container.Annotations,
		},
		Cpu: &runtimeapi.CpuUsage{
			Timestamp:            now,
			UsageCoreNanoSeconds: &runtimeapi.UInt64Value{Value: measured.CPUStats.CPUUsage.TotalUsage},
		},
		Memory: &runtimeapi.MemoryUsage{
			Timestamp:       now,
			WorkingSetBytes: &runtimeapi.UInt64Value{Value: workingSet(&measured.MemoryStats)},
		},
	}
	if described.SizeRw != nil {
		stats.WritableLayer = &runtimeapi.FilesystemUsage{
			Timestamp: now,
			FsId:      &runtimeapi.FilesystemIdentifier{Mountpoint: s.info.DockerRootDir},
			UsedBytes: &runtimeapi.UInt64Value{Value: uint64(*described.SizeRw)},
		}
	}
	return stats, nil
}

// workingSet is what is used without the file cache that can go at any time,
// which cgroup v1 and v2 name differently.
func workingSet(memory *dockertypes.MemoryStats) uint64 {
	for _, name := range []string{"total_inactive_file", "inactive_file"} {
		if idle, ok := memory.Stats[name]; ok && idle <= memory.Usage {
			return memory.Usage - idle
		}
	}
	return memory.Usage
}
