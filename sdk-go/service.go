package synego

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	synegov1 "github.com/lostabaddon/synegobase/sdk-go/internal/gen/synego/v1"
)

// sdkVersion is what the service says of this package, for people.
const sdkVersion = "go/0.1.0"

// maxHandlers is how many handlers the protocol takes.
const maxHandlers = 1000

// Service is what answers: handlers by pattern, a wrapped [http.Handler], a gRPC server, or all of them under one
// name. Declare everything, then call [Service.Run] once.
type Service struct {
	name     string
	options  []Option
	config   config
	world    *world
	client   *Client
	log      *slog.Logger
	level    slog.LevelVar
	instance atomic.Pointer[string]
	addr     atomic.Pointer[string]

	router   *router
	handlers []*handler
	methods  map[string]*handler // of the gRPC server, by full name
	problems []error
	checks   []*check
	loads    map[string]func() float64
	onStart  []func(context.Context) error
	onDrain  []func(context.Context, Drain) error
	onStop   []func() error

	health      *health.Server
	inFlight    atomic.Int64
	openStreams atomic.Int64
	countsGRPC  atomic.Bool // the gRPC server has ServerOptions, so inFlight knows of its calls
	lag         schedulerLag
	draining    chan struct{}
	state       stateBox
	ran         atomic.Bool
	drains      chan Drain
	drainOnce   sync.Once
}

// DrainCause says why a drain begins.
type DrainCause string

// The causes of a drain.
const (
	CauseStop      DrainCause = "stop"
	CauseReload    DrainCause = "reload"
	CauseScaleDown DrainCause = "scale_down"
	CauseOperator  DrainCause = "operator"
)

// Drain is what a hook of [Service.OnDrain] is told.
type Drain struct {
	Cause DrainCause
	// Deadline is when the process ends, drained or not.
	Deadline time.Time
}

// NewService declares a service: the name is that of the manifest, `[a-z]([-a-z0-9]{0,61}[a-z0-9])?`. Mistakes in
// what is declared are told all at once by Run.
func NewService(name string, options ...Option) *Service {
	s := &Service{
		name: name, options: options, router: newRouter(), methods: map[string]*handler{}, loads: map[string]func() float64{},
		draining: make(chan struct{}), drains: make(chan Drain, 1),
	}
	s.config = newConfig(options)
	s.world = newWorld(s.config.env)
	s.client = newClient(s.world, s.config.callTimeout)
	instance := s.world.getenv("SYNEGO_INSTANCE")
	s.instance.Store(&instance)
	s.log = slog.New(newLogHandler(os.Stdout, &s.level, name, &s.instance))
	s.state.changed = make(chan struct{}, 1)
	if !isServiceName(name) {
		s.problems = append(s.problems, fmt.Errorf("service name %q: expected [a-z]([-a-z0-9]{0,61}[a-z0-9])?", name))
	}
	return s
}

// Serve runs an existing handler as a service of the mesh, with the name in SYNEGO_SERVICE, else the program's: its
// listening address, context, health and drain are taken over, its routing is not. The handler may be nil beside
// [WithGRPC].
func Serve(ctx context.Context, handler http.Handler, options ...Option) error {
	config := newConfig(options)
	name := config.env("SYNEGO_SERVICE")
	if name == "" {
		name = nameOfProgram(os.Args[0])
	}
	if handler != nil {
		options = append(slices.Clip(options), WithHandler(handler))
	}
	return NewService(name, options...).Run(ctx)
}

// nameOfProgram makes a service's name of a program's path.
func nameOfProgram(path string) string {
	name := strings.Map(func(char rune) rune {
		switch {
		case char >= 'a' && char <= 'z', char >= '0' && char <= '9':
			return char
		case char >= 'A' && char <= 'Z':
			return char - 'A' + 'a'
		}
		return '-'
	}, filepath.Base(path))
	name = strings.Trim(strings.TrimLeft(name, "0123456789-"), "-")
	if name = strings.TrimRight(name[:min(len(name), 63)], "-"); name == "" {
		return "service"
	}
	return name
}

// Name returns the service's name.
func (s *Service) Name() string { return s.name }

// Instance returns the name of this instance, such as `users-1`; empty while it is not known.
func (s *Service) Instance() string { return *s.instance.Load() }

// Client calls other services by name.
func (s *Service) Client() *Client { return s.client }

// Log returns the service's logger: JSON lines on the standard output with the request's id and trace, at the level
// that the mesh sets. Run makes it the default of [slog] too, unless the program set one.
func (s *Service) Log() *slog.Logger { return s.log }

// OnStart adds a hook that runs before the service is ready, in the order of the calls. An error ends Run.
func (s *Service) OnStart(hook func(context.Context) error) { s.onStart = append(s.onStart, hook) }

// OnDrain adds a hook that runs once when the instance begins to drain, whatever the cause: stop what makes new work.
// Its context ends with the drain's deadline; an error is logged.
func (s *Service) OnDrain(hook func(context.Context, Drain) error) {
	s.onDrain = append(s.onDrain, hook)
}

// OnStop adds a hook that runs when nothing is in flight any more, in the reverse order of the calls: close what the
// handlers needed. An error is logged.
func (s *Service) OnStop(hook func() error) { s.onStop = append(s.onStop, hook) }

// Check adds a health check: it runs every 5 s and may take 1 s. Three failures in a row make the service degraded,
// or unhealthy if the check is [Required]; two passes make it well again. The first result counts at once.
func (s *Service) Check(name string, run func(context.Context) error, options ...CheckOption) {
	c := &check{name: name, run: run}
	for _, option := range options {
		option.applyCheck(c)
	}
	s.named("check", name)
	s.checks = append(s.checks, c)
}

// Load adds a figure of the service's own to what the mesh balances by: 0 (idle) to 1 (full). It is asked for each
// report and must be quick. At most 16.
func (s *Service) Load(name string, figure func() float64) {
	s.named("load", name)
	s.loads[name] = figure
}

// named refuses a name that the protocol does not take.
func (s *Service) named(what, name string) {
	if name == "" || len(name) > 64 || !utf8.ValidString(name) {
		s.problems = append(s.problems, fmt.Errorf("%s name %q, expected 1 to 64 bytes", what, name))
	}
}

// add takes a handler up; mistakes are kept for Run.
func (s *Service) add(text string, h *handler, options []HandlerOption) {
	for _, option := range options {
		option.applyHandler(h)
	}
	s.refuse(text, h.problems)
	parsed, err := parsePattern(text)
	if err == nil {
		h.pattern = parsed
		err = s.router.add(h)
	}
	if err != nil {
		s.problems = append(s.problems, err)
		return
	}
	s.handlers = append(s.handlers, h)
}

func (s *Service) refuse(pattern string, problems []error) {
	for _, problem := range problems {
		s.problems = append(s.problems, fmt.Errorf("%s: %w", pattern, problem))
	}
}

// names are the parameters of a handler's pattern, in order.
func (h *handler) names() []string {
	var names []string
	for _, segment := range h.pattern.segments {
		if segment.name != "" {
			names = append(names, segment.name)
		}
	}
	return names
}

// settle takes up the options of Run and returns every mistake in the declaration.
func (s *Service) settle(options []Option) error {
	s.config = newConfig(append(slices.Clip(s.options), options...))
	s.world.enter(s.config.env)
	s.client.callTimeout = s.config.callTimeout
	instance := s.world.getenv("SYNEGO_INSTANCE")
	s.instance.Store(&instance)
	if s.config.grpc != nil {
		s.adopt(s.config.grpc)
	}
	problems := append(slices.Clip(s.problems), s.config.problems...)
	if len(s.handlers) > maxHandlers {
		problems = append(problems, fmt.Errorf("%d handlers, at most %d are allowed", len(s.handlers), maxHandlers))
	}
	if len(s.checks) > 32 {
		problems = append(problems, fmt.Errorf("%d checks, at most 32 are allowed", len(s.checks)))
	}
	if len(s.loads) > 16 {
		problems = append(problems, fmt.Errorf("%d load figures, at most 16 are allowed", len(s.loads)))
	}
	if len(problems) > 0 {
		return fmt.Errorf("service %s: %w", s.name, errors.Join(problems...))
	}
	return nil
}

// adopt makes the methods of a gRPC server known as handlers, and gives it health unless it has its own.
func (s *Service) adopt(server *grpc.Server) {
	services := server.GetServiceInfo()
	if _, own := services[healthv1.Health_ServiceDesc.ServiceName]; !own {
		s.health = health.NewServer()
		s.health.SetServingStatus("", healthv1.HealthCheckResponse_NOT_SERVING)
		healthv1.RegisterHealthServer(server, s.health)
	}
	var names []string
	for service, info := range services {
		if aboutServer(service) {
			continue
		}
		for _, method := range info.Methods {
			name := "/" + service + "/" + method.Name
			names = append(names, name)
			s.methods[name] = &handler{
				pattern: pattern{text: name}, streaming: method.IsClientStream || method.IsServerStream,
			}
		}
	}
	slices.Sort(names)
	for _, name := range names {
		s.handlers = append(s.handlers, s.methods[name])
	}
}

// aboutServer says whether a gRPC service tells of the server itself and is not the program's own.
func aboutServer(service string) bool {
	return slices.ContainsFunc([]string{"grpc.health.", "grpc.reflection.", "grpc.channelz."}, func(prefix string) bool {
		return strings.HasPrefix(service, prefix)
	})
}

// hello is the whole truth about the service, as its sidecar needs it.
func (s *Service) hello(listeners []*synegov1.Listener, attachment string) *synegov1.Hello {
	handlers := make([]*synegov1.Handler, len(s.handlers))
	for i, h := range s.handlers {
		handlers[i] = h.describe()
	}
	return helloOf(declaration{
		service: s.name, instance: s.world.getenv("SYNEGO_INSTANCE"), version: s.config.version,
		generation: generationOf(s.world.getenv("SYNEGO_GENERATION")), attachment: attachment,
		listeners: listeners, handlers: handlers, routes: s.config.routes, state: s.state.message(s.checks),
	})
}

// Addr returns where the service listens for HTTP, or for gRPC when it serves nothing else: HOST:PORT, or `unix:PATH`
// for a socket; empty before Run listens.
func (s *Service) Addr() string {
	if addr := s.addr.Load(); addr != nil {
		return *addr
	}
	return ""
}
