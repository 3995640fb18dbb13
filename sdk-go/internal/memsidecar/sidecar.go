// Package memsidecar is a mesh inside a test: a sidecar for each service that speaks the real service protocol on a
// Unix socket and has a real outbound, without balancing, TLS or a master.
package memsidecar

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	synegov1 "github.com/lostabaddon/synegobase/sdk-go/internal/gen/synego/v1"
)

// reportEvery is what a sidecar asks for: the shortest period that the protocol knows.
const reportEvery = 250 * time.Millisecond

// Mesh is a set of sidecars that reach each other's services.
type Mesh struct {
	folder   string
	mutex    sync.Mutex
	sidecars map[string]*Sidecar
	stubs    map[string]*Stub
}

// Stub answers for a service that is not there.
type Stub struct {
	// HTTP answers what is no gRPC call; nil: 404.
	HTTP http.Handler
	// GRPC is the address of a gRPC server; empty: UNIMPLEMENTED.
	GRPC string
}

// New makes an empty mesh; its sockets are in a new folder.
func New() (*Mesh, error) {
	folder, err := os.MkdirTemp("", "synego-test-") // a test's own folder may be too long for a socket's path
	if err != nil {
		return nil, err
	}
	return &Mesh{folder: folder, sidecars: map[string]*Sidecar{}, stubs: map[string]*Stub{}}, nil
}

// Close ends all sidecars and removes their sockets.
func (m *Mesh) Close() error {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	for _, sidecar := range m.sidecars {
		sidecar.stop()
		_ = sidecar.outbound.Close()
	}
	return os.RemoveAll(m.folder)
}

// Stub returns the stub of a service, made at the first call.
func (m *Mesh) Stub(service string) *Stub {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if m.stubs[service] == nil {
		m.stubs[service] = &Stub{}
	}
	return m.stubs[service]
}

// Sidecar is beside one service.
type Sidecar struct {
	synegov1.UnimplementedSidecarServer
	mesh     *Mesh
	service  string
	socket   string
	address  string // of the outbound
	outbound *http.Server

	mutex    sync.Mutex
	server   *grpc.Server
	stream   grpc.BidiStreamingServer[synegov1.FromService, synegov1.ToService]
	refusal  error
	draining bool
	settings *synegov1.Settings
	seen     Seen
	changed  chan struct{}
}

// Seen is what a service told its sidecar, the newest of each.
type Seen struct {
	Hello    *synegov1.Hello
	State    *synegov1.State
	Load     *synegov1.Load
	Applied  *synegov1.Applied
	Attached bool
	Hellos   int
}

// Add starts a sidecar for a service.
func (m *Mesh) Add(service string) (*Sidecar, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Sidecar{
		mesh: m, service: service, address: listener.Addr().String(), changed: make(chan struct{}),
		socket: filepath.Join(m.folder, service+".sock"), settings: &synegov1.Settings{Revision: 1},
	}
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	s.outbound = &http.Server{Handler: newProxy(s), Protocols: protocols, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = s.outbound.Serve(listener) }()
	if err := s.Listen(); err != nil {
		_ = s.outbound.Close()
		return nil, err
	}
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.sidecars[service] = s
	return s, nil
}

// Env returns the variable that a service finds in its environment.
func (s *Sidecar) Env(name string) string {
	return map[string]string{
		"PORT": "0", "SYNEGO_SERVICE": s.service, "SYNEGO_INSTANCE": s.service + "-1",
		"SYNEGO_SIDECAR": "unix:" + s.socket, "SYNEGO_OUTBOUND": "http://" + s.address,
	}[name]
}

// Listen serves the service protocol; again after [Sidecar.Lose].
func (s *Sidecar) Listen() error {
	listener, err := net.Listen("unix", s.socket)
	if err != nil {
		return err
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.server = grpc.NewServer(grpc.MaxRecvMsgSize(1 << 20))
	synegov1.RegisterSidecarServer(s.server, s)
	go func(server *grpc.Server) { _ = server.Serve(listener) }(s.server)
	return nil
}

// Lose ends the service protocol as a crash does: every stream breaks and nothing listens.
func (s *Sidecar) Lose() { s.stop() }

func (s *Sidecar) stop() {
	s.mutex.Lock()
	server := s.server
	s.mutex.Unlock()
	server.Stop()
}

// Refuse answers every further Hello with this status; nil ends it.
func (s *Sidecar) Refuse(err error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.refusal = err
}

// Send sends a message to the attached service.
func (s *Sidecar) Send(message *synegov1.ToService) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.stream == nil {
		return fmt.Errorf("%s is not attached", s.service)
	}
	if settings := message.GetSettings(); settings != nil {
		settings.Revision = s.settings.GetRevision() + 1
		s.settings = settings
	}
	s.draining = s.draining || message.GetDrain() != nil
	return s.stream.Send(message)
}

// Wait returns what the service told as soon as it satisfies a condition.
func (s *Sidecar) Wait(ctx context.Context, condition func(Seen) bool) (Seen, error) {
	for {
		s.mutex.Lock()
		seen, changed := s.seen, s.changed
		s.mutex.Unlock()
		if condition(seen) {
			return seen, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return seen, fmt.Errorf("%s: %w; last state: %v", s.service, ctx.Err(), seen.State)
		}
	}
}

func (s *Sidecar) update(change func()) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	change()
	close(s.changed)
	s.changed = make(chan struct{})
}

// Attach is the service protocol.
func (s *Sidecar) Attach(stream grpc.BidiStreamingServer[synegov1.FromService, synegov1.ToService]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if err := s.check(first.GetHello()); err != nil {
		return err
	}
	// Welcome goes out before anyone else can send on this stream.
	err = stream.Send(&synegov1.ToService{Is: &synegov1.ToService_Welcome{Welcome: &synegov1.Welcome{
		Protocol: 1, AttachmentId: s.service + "-attachment", Mesh: "test", Instance: s.service + "-1",
		Outbound: "http://" + s.address, ReportEveryMs: uint32(reportEvery.Milliseconds()),
		Features: first.GetHello().GetFeatures(), Settings: s.settings,
	}}})
	if err != nil {
		return err
	}
	s.update(func() {
		s.stream = stream
		s.seen.Hello, s.seen.State, s.seen.Attached = first.GetHello(), first.GetHello().GetState(), true
		s.seen.Hellos++
	})
	defer s.update(func() {
		if s.stream == stream {
			s.stream, s.seen.Attached = nil, false
		}
	})
	for {
		message, err := stream.Recv()
		if err != nil {
			return nil // the end of the service's side is the end of the attachment
		}
		s.update(func() {
			switch is := message.GetIs().(type) {
			case *synegov1.FromService_State:
				s.seen.State = is.State
			case *synegov1.FromService_Load:
				s.seen.Load = is.Load
			case *synegov1.FromService_Applied:
				s.seen.Applied = is.Applied
			}
		})
	}
}

// check refuses a Hello as the real sidecar does.
func (s *Sidecar) check(hello *synegov1.Hello) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	var mistakes []error
	if hello == nil {
		return status.Error(codes.InvalidArgument, "the first message must be Hello")
	}
	if hello.GetService() != s.service {
		mistakes = append(mistakes, fmt.Errorf("service %q, expected %q", hello.GetService(), s.service))
	}
	if count := len(hello.GetListeners()); count < 1 || count > 8 {
		mistakes = append(mistakes, fmt.Errorf("%d listeners, expected 1 to 8", count))
	}
	if len(mistakes) > 0 {
		return status.Error(codes.InvalidArgument, errors.Join(mistakes...).Error())
	}
	if hello.GetProtocolMin() > 1 || hello.GetProtocolMax() < 1 {
		return status.Errorf(codes.FailedPrecondition, "protocol %d to %d, expected 1", hello.GetProtocolMin(), hello.GetProtocolMax())
	}
	return s.refusal
}

// Describe says what this sidecar is.
func (s *Sidecar) Describe(context.Context, *synegov1.DescribeRequest) (*synegov1.Description, error) {
	return &synegov1.Description{
		Version: "test", ProtocolMin: 1, ProtocolMax: 1, Mesh: "test", Service: s.service, Instance: s.service + "-1",
		Outbound: "http://" + s.address, MaxMessageBytes: 1 << 20,
	}, nil
}
