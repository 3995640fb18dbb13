package synego

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	synegov1 "github.com/lostabaddon/synegobase/sdk-go/internal/gen/synego/v1"
)

// LinkState is where the link to the sidecar is.
type LinkState string

// The states of a link.
const (
	// LinkOff: there is no sidecar; SYNEGO_SIDECAR is unset or "off".
	LinkOff LinkState = "off"
	// LinkConnecting: the sidecar did not accept yet, or was lost; requests go on all the same.
	LinkConnecting LinkState = "connecting"
	// LinkAttached: the sidecar knows the service.
	LinkAttached LinkState = "attached"
	// LinkRefused: the sidecar refused the service for good; it runs on as if alone, but calls still go through it.
	LinkRefused LinkState = "refused"
	// LinkClosed: the program ended the link.
	LinkClosed LinkState = "closed"
)

// Link is what is known of the sidecar at one moment.
type Link struct {
	State LinkState
	// Mesh, Instance, Zone and Outbound are the sidecar's words; empty before it was heard.
	Mesh, Instance, Zone, Outbound string
	// Refusal says why, in LinkRefused.
	Refusal *Error
}

// world is what a service and its client share: the environment and the link.
type world struct {
	env  atomic.Pointer[func(string) string]
	link atomic.Pointer[Link]
}

func newWorld(env func(string) string) *world {
	w := &world{}
	w.enter(env)
	return w
}

// enter takes up an environment; the link begins anew.
func (w *world) enter(env func(string) string) {
	w.env.Store(&env)
	link := &Link{State: LinkConnecting, Outbound: env("SYNEGO_OUTBOUND"), Instance: env("SYNEGO_INSTANCE")}
	if w.sidecar() == "" {
		link.State = LinkOff
	}
	w.link.Store(link)
}

func (w *world) getenv(name string) string { return (*w.env.Load())(name) }

// sidecar returns the address of the service protocol, or nothing when the program is to run alone.
func (w *world) sidecar() string {
	if address := w.getenv("SYNEGO_SIDECAR"); address != "off" {
		return address
	}
	return ""
}

func (w *world) alone() bool { return w.link.Load().State == LinkOff }

// change replaces the link by a changed copy.
func (w *world) change(change func(*Link)) {
	next := *w.link.Load()
	change(&next)
	w.link.Store(&next)
}

// resolve returns the host and port where calls to a service go: the sidecar's outbound, or what SYNEGO_URL_<SERVICE>
// names for a program that runs alone.
func (w *world) resolve(service string) (string, error) {
	link := w.link.Load()
	own := w.getenv("SYNEGO_URL_" + strings.ToUpper(strings.ReplaceAll(service, "-", "_")))
	order := []string{link.Outbound, own}
	if link.State == LinkOff {
		order = []string{own, link.Outbound}
	}
	for _, base := range order {
		if base == "" {
			continue
		}
		parsed, err := url.Parse(base)
		if err != nil || parsed.Scheme != "http" || parsed.Host == "" {
			return "", Errorf(Internal, "cannot call %s by name: %q is no URL like http://127.0.0.1:4001", service, base)
		}
		return parsed.Host, nil
	}
	e := reasonError(ReasonNoSidecar, "cannot call %s by name: this program runs without a sidecar", service)
	e.Service = service
	return "", e
}

var serviceName = regexp.MustCompile(`^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$`)

func isServiceName(name string) bool { return serviceName.MatchString(name) }

// Client calls other services by their names. Calls carry the context of the request that causes them: its id, trace,
// baggage, deadline and priority. It never repeats a call: that is the sidecar's to decide.
type Client struct {
	world       *world
	callTimeout time.Duration
	http        *http.Client
	base        *http.Transport
	mutex       sync.Mutex
	conns       map[string]*grpc.ClientConn
	closed      bool
}

// Dial makes a client for a program that serves nothing, and returns once its sidecar answered. It tries again until
// ctx ends; the error then wraps ctx.Err() and the last [*Error]. Without a sidecar it returns at once: names are then
// those of SYNEGO_URL_<SERVICE>. A [Service] has a client of its own.
func Dial(ctx context.Context, options ...Option) (*Client, error) {
	config := newConfig(options)
	if len(config.problems) > 0 {
		return nil, errors.Join(config.problems...)
	}
	world := newWorld(config.env)
	client := newClient(world, config.callTimeout)
	address := world.sidecar()
	for attempt := 1; address != ""; attempt++ {
		description, err := describe(ctx, address)
		if err == nil {
			world.change(func(link *Link) {
				link.State, link.Mesh = LinkAttached, description.GetMesh()
				link.Instance, link.Outbound = description.GetInstance(), description.GetOutbound()
			})
			break
		}
		if wait(ctx, backOff(attempt)) != nil {
			client.Close()
			return nil, fmt.Errorf("%w: %w", ctx.Err(), err)
		}
	}
	return client, nil
}

// describe asks a sidecar what it is.
func describe(ctx context.Context, address string) (*synegov1.Description, error) {
	conn, err := dialSidecar(address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	description, err := synegov1.NewSidecarClient(conn).Describe(ctx, &synegov1.DescribeRequest{})
	if err != nil {
		return nil, reasonError(ReasonSidecarUnreachable, "no answer from the sidecar at %s", address).WithCause(err)
	}
	return description, nil
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

func newClient(world *world, callTimeout time.Duration) *Client {
	c := &Client{world: world, callTimeout: callTimeout, conns: map[string]*grpc.ClientConn{}}
	c.base = &http.Transport{
		DialContext:         (&net.Dialer{Timeout: time.Second}).DialContext,
		MaxIdleConnsPerHost: 256,
		IdleConnTimeout:     60 * time.Second, // below the 75 s after which a sidecar closes
		DisableCompression:  true,             // bodies pass as they are
	}
	c.http = &http.Client{Transport: &transport{client: c}}
	return c
}

// Link returns what is known of the sidecar now.
func (c *Client) Link() Link { return *c.world.link.Load() }

// HTTP returns a client for URLs whose host is a service: `http://users/users/42`. Use the context of the request that
// causes the call. Any other host (with a dot or a port, or https) is called directly and gets no context. A service
// that cannot be reached is an [*Error] for [errors.As]; an answer of 400 and above is none: see [ErrorOf].
func (c *Client) HTTP() *http.Client { return c.http }

// Conn returns a connection for the stubs of a service. It is shared, connects at the first call, and is closed by
// the client alone. Failures of its calls are [*Error]s, whose status gRPC finds too.
func (c *Client) Conn(service string) *grpc.ClientConn {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if conn := c.conns[service]; conn != nil {
		return conn
	}
	conn, err := grpc.NewClient("passthrough:///"+url.PathEscape(service),
		grpc.WithAuthority(service),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy(),
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 2, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: time.Second,
		}),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			host, err := c.world.resolve(service) // anew each time: a sidecar may come back elsewhere
			if err != nil {
				return nil, err
			}
			return (&net.Dialer{}).DialContext(ctx, "tcp", host)
		}),
		grpc.WithChainUnaryInterceptor(c.callUnary(service)),
		grpc.WithChainStreamInterceptor(c.callStream(service)),
	)
	if err != nil { // only options that contradict each other, and these do not
		panic(fmt.Sprintf("synego: connection to %s: %s", service, err))
	}
	if c.closed {
		_ = conn.Close()
	}
	c.conns[service] = conn
	return conn
}

// Close ends the client's connections; calls that run are cut. A service closes its own when it is drained.
func (c *Client) Close() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.closed = true
	for _, conn := range c.conns {
		_ = conn.Close()
	}
	c.base.CloseIdleConnections()
}
