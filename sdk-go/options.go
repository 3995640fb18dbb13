package synego

import (
	"fmt"
	"net/http"
	"os"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc"
)

// Option sets up a [Service] or a [Client].
type Option interface{ apply(*config) }

type option func(*config)

func (o option) apply(c *config) { o(c) }

// config is what the options of a service or client come to.
type config struct {
	env            func(string) string
	isSet          func(string) bool // whether a variable is there, be it empty
	version        string
	routes         []string
	handler        http.Handler
	grpc           *grpc.Server
	address        string
	callTimeout    time.Duration
	requireSidecar bool
	embedded       bool
	problems       []error
}

func newConfig(options []Option) config {
	c := config{env: os.Getenv, callTimeout: 10 * time.Second}
	c.isSet = func(name string) bool { _, found := os.LookupEnv(name); return found }
	for _, option := range options {
		option.apply(&c)
	}
	return c
}

func (c *config) problem(format string, args ...any) {
	c.problems = append(c.problems, fmt.Errorf(format, args...))
}

// WithVersion tells people and `split` the version of the service; at most 64 bytes.
func WithVersion(version string) Option {
	return option(func(c *config) {
		if len(version) > 64 || !utf8.ValidString(version) {
			c.problem("version %q, at most 64 bytes are allowed", version)
		}
		c.version = version
	})
}

// WithRoutes asks the mesh to route these places to the service: `/api/orders` or `shop.example.com/orders`, at most
// 256. A list in the manifest goes before.
func WithRoutes(routes ...string) Option {
	return option(func(c *config) {
		if len(routes) > 256 {
			c.problem("%d routes, at most 256 are allowed", len(routes))
		}
		c.routes = routes
	})
}

// WithHandler serves what no pattern of the service takes with an existing [http.Handler].
func WithHandler(handler http.Handler) Option { return option(func(c *config) { c.handler = handler }) }

// WithGRPC serves a gRPC server, which must not serve yet. Make it with [ServerOptions] so that its failures, logs and
// drain are those of the mesh. Beside HTTP handlers it gets a listener of its own; alone it listens on PORT or SOCKET.
func WithGRPC(server *grpc.Server) Option { return option(func(c *config) { c.grpc = server }) }

// WithAddress listens on this address, such as ":8080" for a container without sidecar, instead of what PORT or SOCKET
// says.
func WithAddress(address string) Option { return option(func(c *config) { c.address = address }) }

// RequireSidecar makes Run fail when the sidecar did not accept the service within 10 s. Without it the service
// serves at once and attaches when it can.
func RequireSidecar() Option { return option(func(c *config) { c.requireSidecar = true }) }

// WithEnv reads PORT, SOCKET and the SYNEGO variables with this function, which returns "" for one that is not set.
// Default: [os.Getenv].
func WithEnv(env func(name string) string) Option {
	return option(func(c *config) {
		c.env = env
		c.isSet = func(name string) bool { return env(name) != "" }
	})
}

// Embedded leaves the process alone: Run takes no signals and installs no logger. For a service inside a test or
// another program, which ends it through its context.
func Embedded() Option { return option(func(c *config) { c.embedded = true }) }

// CallOption sets up one call by name.
type CallOption interface{ applyCall(*callConfig) }

type callConfig struct{ timeout time.Duration }

// CallTimeout is the option that [WithCallTimeout] makes, for all calls or for one.
type CallTimeout time.Duration

// WithCallTimeout bounds outgoing calls: all of a client or service, or one of [Call]. Default 10 s; d must be
// positive. The deadline of the context counts when it is earlier. A call over HTTP is bounded until the head of its
// answer is there, a streaming gRPC call only by its context.
func WithCallTimeout(d time.Duration) CallTimeout { return CallTimeout(d) }

func (t CallTimeout) apply(c *config) {
	if t <= 0 {
		c.problem("call timeout of %s, must be positive", time.Duration(t))
		return
	}
	c.callTimeout = time.Duration(t)
}

func (t CallTimeout) applyCall(c *callConfig) {
	if t > 0 {
		c.timeout = time.Duration(t)
	}
}

// HandlerOption sets up one handler.
type HandlerOption interface{ applyHandler(*handler) }

type handlerOption func(*handler)

func (o handlerOption) applyHandler(h *handler) { o(h) }

// WithStatus answers with this HTTP status when the handler succeeds; 200–299. Default: 200, and 204 for [None].
func WithStatus(status int) HandlerOption {
	return handlerOption(func(h *handler) {
		if status < 200 || status > 299 {
			h.problems = append(h.problems, fmt.Errorf("status %d, expected 200 to 299", status))
		}
		h.status = status
	})
}

// Streaming tells the mesh that the answers of the handler go on for as long as they like.
func Streaming() HandlerOption { return handlerOption(func(h *handler) { h.streaming = true }) }

// CheckOption sets up one health check.
type CheckOption interface{ applyCheck(*check) }

type checkOption func(*check)

func (o checkOption) applyCheck(c *check) { o(c) }

// Required makes the service unhealthy, and not just degraded, while the check fails.
func Required() CheckOption { return checkOption(func(c *check) { c.required = true }) }
