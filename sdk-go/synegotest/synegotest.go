// Package synegotest runs services in a mesh inside a test: a sidecar in memory speaks the real service protocol to
// each, and routes calls by name to them and to stubs. It can also lose the link, drain, refuse and push a log level.
package synegotest

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	synego "github.com/lostabaddon/synegobase/sdk-go"
	synegov1 "github.com/lostabaddon/synegobase/sdk-go/internal/gen/synego/v1"
	"github.com/lostabaddon/synegobase/sdk-go/internal/memsidecar"
)

// within is how long anything in a test mesh may take.
const within = 20 * time.Second

// Mesh is a test mesh. All its methods fail the test when something does not work.
type Mesh struct {
	t       testing.TB
	mesh    *memsidecar.Mesh
	members map[string]*member
	env     map[string]string
	servers []*grpc.Server
	client  *synego.Client
}

// member is one running service.
type member struct {
	sidecar *memsidecar.Sidecar
	stop    context.CancelFunc
	done    chan struct{}
	err     error
}

// Option sets up a test mesh.
type Option func(*Mesh, *[]*synego.Service)

// With runs a further service in the mesh.
func With(service *synego.Service) Option {
	return func(_ *Mesh, services *[]*synego.Service) { *services = append(*services, service) }
}

// Env adds variables to the environment of every service of the mesh.
func Env(variables map[string]string) Option {
	return func(m *Mesh, _ *[]*synego.Service) { m.env = variables }
}

// Stub answers the calls by name (see [synego.Call]) of a service that is not there with a value, as JSON.
func Stub(service, name string, value any) Option {
	return func(m *Mesh, _ *[]*synego.Service) {
		m.t.Helper()
		text, err := json.Marshal(value)
		if err != nil {
			m.t.Fatalf("stub %s of %s: %s", name, service, err)
		}
		stub := m.mesh.Stub(service)
		mux, ok := stub.HTTP.(*http.ServeMux)
		if !ok {
			mux = http.NewServeMux()
			stub.HTTP = mux
		}
		mux.HandleFunc("POST /rpc/"+name, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(text) // the caller may be gone
		})
	}
}

// StubHTTP answers the HTTP requests to a service that is not there.
func StubHTTP(service string, handler http.Handler) Option {
	return func(m *Mesh, _ *[]*synego.Service) { m.mesh.Stub(service).HTTP = handler }
}

// StubGRPC answers the gRPC calls to a service that is not there; register its implementation in the function.
func StubGRPC(service string, register func(grpc.ServiceRegistrar)) Option {
	return func(m *Mesh, _ *[]*synego.Service) {
		m.t.Helper()
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			m.t.Fatalf("stub %s: %s", service, err)
		}
		server := grpc.NewServer(synego.ServerOptions()...)
		register(server)
		m.servers = append(m.servers, server)
		go func() { _ = server.Serve(listener) }()
		m.mesh.Stub(service).GRPC = listener.Addr().String()
	}
}

// Start runs a service in a new mesh and returns once it is ready. The mesh ends with the test.
func Start(t testing.TB, service *synego.Service, options ...Option) *Mesh {
	t.Helper()
	mesh, err := memsidecar.New()
	if err != nil {
		t.Fatalf("test mesh: %s", err)
	}
	m := &Mesh{t: t, mesh: mesh, members: map[string]*member{}}
	t.Cleanup(m.close)
	services := []*synego.Service{service}
	for _, option := range options {
		option(m, &services)
	}
	for _, service := range services {
		m.run(service)
	}
	m.client = m.dial()
	return m
}

// dial makes the client of the test itself, which has a sidecar as any caller has.
func (m *Mesh) dial() *synego.Client {
	m.t.Helper()
	sidecar, err := m.mesh.Add("test")
	if err != nil {
		m.t.Fatalf("test mesh: %s", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	client, err := synego.Dial(ctx, synego.WithEnv(sidecar.Env))
	if err != nil {
		m.t.Fatalf("test mesh: %s", err)
	}
	return client
}

func (m *Mesh) run(service *synego.Service) {
	m.t.Helper()
	sidecar, err := m.mesh.Add(service.Name())
	if err != nil {
		m.t.Fatalf("test mesh: %s", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	running := &member{sidecar: sidecar, stop: stop, done: make(chan struct{})}
	m.members[service.Name()] = running
	env := func(name string) string {
		if value, ok := m.env[name]; ok {
			return value
		}
		return sidecar.Env(name)
	}
	go func() {
		defer close(running.done)
		running.err = service.Run(ctx, synego.WithEnv(env), synego.Embedded())
	}()
	ready, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	go func() { // a service that ends early ends the wait
		<-running.done
		cancel()
	}()
	if _, err := sidecar.Wait(ready, func(seen memsidecar.Seen) bool {
		return seen.Attached && seen.State.GetPhase() >= synegov1.Phase_PHASE_READY
	}); err != nil {
		select {
		case <-running.done:
			m.t.Fatalf("%s ended: %v", service.Name(), running.err)
		default:
			m.t.Fatalf("not ready: %s", err)
		}
	}
}

func (m *Mesh) close() {
	for name, member := range m.members {
		member.stop()
		select {
		case <-member.done:
			if member.err != nil {
				m.t.Errorf("%s: %s", name, member.err)
			}
		case <-time.After(within):
			m.t.Errorf("%s did not end within %s", name, within)
		}
	}
	if m.client != nil {
		m.client.Close()
	}
	for _, server := range m.servers {
		server.Stop()
	}
	if err := m.mesh.Close(); err != nil {
		m.t.Errorf("test mesh: %s", err)
	}
}

// Client calls the services of the mesh by name, as a service named `test`.
func (m *Mesh) Client() *synego.Client { return m.client }

func (m *Mesh) member(service string) *member {
	m.t.Helper()
	member := m.members[service]
	if member == nil {
		m.t.Fatalf("no service %q in this mesh", service)
	}
	return member
}

// State is what a service last told its sidecar.
type State struct {
	// Phase is starting, ready, degraded, unhealthy, draining or drained.
	Phase string
	// Checks has "ok" or the cause of the failure for each check.
	Checks map[string]string
	// Instance and Version are the service's own words.
	Instance, Version string
	// Handlers are the patterns of its handlers.
	Handlers []string
	// Utilization is how full the service says it is, 0 to 1; Named are its own figures.
	Utilization float64
	Named       map[string]float64
	// OpenStreams is how many streams are open.
	OpenStreams int
	// Attachments counts how often it attached.
	Attachments int
	// Attached says whether it is attached now.
	Attached bool
}

func stateOf(seen memsidecar.Seen) State {
	state := State{
		Phase:  strings.ToLower(strings.TrimPrefix(seen.State.GetPhase().String(), "PHASE_")),
		Checks: map[string]string{}, Instance: seen.Hello.GetInstance(), Version: seen.Hello.GetVersion(),
		Utilization: seen.Load.GetUtilization(), Named: seen.Load.GetNamed(), OpenStreams: int(seen.Load.GetOpenStreams()),
		Attachments: seen.Hellos, Attached: seen.Attached,
	}
	for _, handler := range seen.Hello.GetHandlers().GetHandler() {
		state.Handlers = append(state.Handlers, handler.GetPattern())
	}
	for _, check := range seen.State.GetCheck() {
		state.Checks[check.GetName()] = check.GetCause()
		if check.GetOk() {
			state.Checks[check.GetName()] = "ok"
		}
	}
	return state
}

// Await returns the state of a service as soon as it satisfies a condition.
func (m *Mesh) Await(service string, condition func(State) bool) State {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	seen, err := m.member(service).sidecar.Wait(ctx, func(seen memsidecar.Seen) bool { return condition(stateOf(seen)) })
	if err != nil {
		m.t.Fatalf("state of %s: %s", service, err)
	}
	return stateOf(seen)
}

// Drain tells a service to drain, within 5 s, and begins to refuse requests to it. As a parent does, it ends the
// service when it is drained; [Mesh.Ended] waits for that.
func (m *Mesh) Drain(service string, cause synego.DrainCause) {
	m.t.Helper()
	word := synegov1.DrainCause(synegov1.DrainCause_value["DRAIN_CAUSE_"+strings.ToUpper(string(cause))])
	m.send(service, &synegov1.ToService{Is: &synegov1.ToService_Drain{Drain: &synegov1.Drain{Cause: word, DeadlineMs: 5000}}})
	member := m.member(service)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), within)
		defer cancel()
		if _, err := member.sidecar.Wait(ctx, func(seen memsidecar.Seen) bool {
			return seen.State.GetPhase() == synegov1.Phase_PHASE_DRAINED
		}); err == nil {
			member.stop()
		}
	}()
}

// Stop ends a service as TERM does.
func (m *Mesh) Stop(service string) {
	m.t.Helper()
	m.member(service).stop()
}

// Ended waits until a service ended, and returns what its Run returned.
func (m *Mesh) Ended(service string) error {
	m.t.Helper()
	member := m.member(service)
	select {
	case <-member.done:
		return member.err
	case <-time.After(within):
		return fmt.Errorf("%s did not end within %s", service, within)
	}
}

// LoseLink ends the sidecar's side of a service's link, as a crash does; requests go on. [Mesh.RestoreLink] brings
// it back.
func (m *Mesh) LoseLink(service string) {
	m.t.Helper()
	m.member(service).sidecar.Lose()
}

// RestoreLink lets a service attach again.
func (m *Mesh) RestoreLink(service string) {
	m.t.Helper()
	if err := m.member(service).sidecar.Listen(); err != nil {
		m.t.Fatalf("sidecar of %s: %s", service, err)
	}
}

// Refuse answers every further attempt of a service to attach with this code; OK ends it.
func (m *Mesh) Refuse(service string, code synego.Code, message string) {
	m.t.Helper()
	m.member(service).sidecar.Refuse(status.Error(codes.Code(code), message))
}

// Move tells a service that another sidecar holds the socket now.
func (m *Mesh) Move(service string) {
	m.t.Helper()
	m.send(service, &synegov1.ToService{Is: &synegov1.ToService_Moved{Moved: &synegov1.Moved{}}})
}

// SetLogLevel pushes settings with this level, and returns once the service applied them.
func (m *Mesh) SetLogLevel(service string, level slog.Level) {
	m.t.Helper()
	word := synegov1.LogLevel_LOG_LEVEL_INFO
	switch {
	case level < slog.LevelDebug:
		word = synegov1.LogLevel_LOG_LEVEL_TRACE
	case level < slog.LevelInfo:
		word = synegov1.LogLevel_LOG_LEVEL_DEBUG
	case level >= slog.LevelError:
		word = synegov1.LogLevel_LOG_LEVEL_ERROR
	case level >= slog.LevelWarn:
		word = synegov1.LogLevel_LOG_LEVEL_WARN
	}
	settings := &synegov1.Settings{LogLevel: word}
	m.send(service, &synegov1.ToService{Is: &synegov1.ToService_Settings{Settings: settings}})
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	if _, err := m.member(service).sidecar.Wait(ctx, func(seen memsidecar.Seen) bool {
		return seen.Applied.GetRevision() == settings.GetRevision()
	}); err != nil {
		m.t.Fatalf("settings of %s: %s", service, err)
	}
}

func (m *Mesh) send(service string, message *synegov1.ToService) {
	m.t.Helper()
	if err := m.member(service).sidecar.Send(message); err != nil {
		m.t.Fatalf("message to %s: %s", service, err)
	}
}
