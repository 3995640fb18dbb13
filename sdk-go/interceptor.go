package synego

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// ServeHTTP is where every request enters, also those for the handler of [WithHandler]: its context is read from the
// headers, it counts as in flight, and a panic becomes a 500.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	known, left := readRequest(r.Header.Get, "http")
	known.draining = s.draining
	ctx := context.WithValue(r.Context(), requestKey{}, known)
	h, values, allow := s.router.find(r.Method, r.URL.EscapedPath())
	stream := isStream(r) || (h != nil && h.streaming)
	if left.known && !stream { // a stream has no total time limit
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, left.time)
		defer cancel()
	}
	r = r.WithContext(ctx)
	defer s.enter(h, stream)()
	answer := &answer{ResponseWriter: w}
	defer s.recovered(answer, r, h)
	if h != nil {
		known.handler.Store(&h.pattern.text)
		for i, name := range h.names() {
			r.SetPathValue(name, values[i])
		}
		h.serve.ServeHTTP(answer, r)
		return
	}
	s.elsewhere(answer, r, allow)
}

// elsewhere answers what no pattern takes: health, then the wrapped handler, then 404 or 405.
func (s *Service) elsewhere(w http.ResponseWriter, r *http.Request, allow []string) {
	switch {
	case (s.config.handler == nil || s.world.alone()) && s.serveHealth(w, r):
	case s.config.handler != nil:
		s.config.handler.ServeHTTP(w, r)
	case len(allow) > 0:
		w.Header().Set("Allow", strings.Join(allow, ", "))
		s.fail(w, r, Errorf(Unimplemented, "%s takes %s, not %s", r.URL.Path, strings.Join(allow, ", "), r.Method).
			WithStatus(http.StatusMethodNotAllowed).WithReason(ReasonNoHandler), false)
	default:
		s.fail(w, r, reasonError(ReasonNoHandler, "no handler for %s %s", r.Method, r.URL.Path).WithStatus(http.StatusNotFound), false)
	}
}

// isStream says whether a request asks for an answer without end: server-sent events or another protocol.
func isStream(r *http.Request) bool {
	return r.Header.Get("Upgrade") != "" || strings.Contains(r.Header.Get("Accept"), "text/event-stream")
}

// enter counts a request as in flight until the function it returns is called.
func (s *Service) enter(h *handler, stream bool) (leave func()) {
	s.inFlight.Add(1)
	if h != nil {
		h.running.Add(1)
	}
	if stream {
		s.openStreams.Add(1)
	}
	return func() {
		if stream {
			s.openStreams.Add(-1)
		}
		if h != nil {
			h.running.Add(-1)
		}
		s.inFlight.Add(-1)
	}
}

// recovered turns a panic into an answer, or cuts the connection when the answer began already.
func (s *Service) recovered(w *answer, r *http.Request, h *handler) {
	panicked := recover()
	if panicked == nil {
		return
	}
	if err, ok := panicked.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(panicked)
	}
	err := s.panicked(r.Context(), panicked)
	if w.began.Load() {
		panic(http.ErrAbortHandler)
	}
	s.fail(w, r, err, h != nil && h.byName)
}

// panicked logs the stack and returns what the caller is told.
func (s *Service) panicked(ctx context.Context, panicked any) error {
	s.log.ErrorContext(ctx, "handler panicked", "panic", fmt.Sprint(panicked), "stack", string(debug.Stack()))
	return Errorf(Internal, "internal error")
}

// answer knows whether the head of an answer is out.
type answer struct {
	http.ResponseWriter
	began atomic.Bool
}

func (a *answer) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		a.began.Store(true)
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(bytes []byte) (int, error) {
	a.began.Store(true)
	return a.ResponseWriter.Write(bytes)
}

// ReadFrom keeps the way through the kernel open for files.
func (a *answer) ReadFrom(from io.Reader) (int64, error) {
	a.began.Store(true)
	return io.Copy(a.ResponseWriter, from)
}

// Flush, Hijack and Unwrap let foreign handlers find what the server's own writer can do.
func (a *answer) Flush() {
	a.began.Store(true)
	_ = http.NewResponseController(a.ResponseWriter).Flush() // as http.Flusher has it, no word on failure
}

// Hijack takes the connection over.
func (a *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	a.began.Store(true)
	return http.NewResponseController(a.ResponseWriter).Hijack()
}

// Unwrap is for [http.ResponseController].
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// ServerOptions makes a gRPC server one of the mesh: handlers find their request in the context, count as in flight,
// an [*Error] leaves with all it says, any other error that is no gRPC status and any panic as INTERNAL with a fixed
// text. Further interceptors may follow in grpc.ChainUnaryInterceptor and grpc.ChainStreamInterceptor.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		// Sidecars ping every 10 s; gRPC's own default takes that for an attack and hangs up.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.ChainUnaryInterceptor(serveUnary), grpc.ChainStreamInterceptor(serveStream),
	}
}

func serveUnary(ctx context.Context, in any, info *grpc.UnaryServerInfo, serve grpc.UnaryHandler) (out any, err error) {
	ctx, done := enterGRPC(ctx, info.FullMethod, false)
	defer func() { err = done(recover(), err) }()
	return serve(ctx, in)
}

func serveStream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, serve grpc.StreamHandler) (err error) {
	ctx, done := enterGRPC(stream.Context(), info.FullMethod, true)
	defer func() { err = done(recover(), err) }()
	return serve(server, &serverStream{ServerStream: stream, ctx: ctx})
}

type serverStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *serverStream) Context() context.Context { return s.ctx }

// enterGRPC gives a call its context; the function it returns ends the call and says what the caller is told.
func enterGRPC(ctx context.Context, method string, stream bool) (context.Context, func(panicked any, err error) error) {
	incoming, _ := metadata.FromIncomingContext(ctx)
	get := metadataGet(incoming)
	known, remaining := readRequest(get, "grpc")
	known.handler.Store(&method)
	cancel, leave := func() {}, func() {}
	owner := ownerOf(ctx)
	if owner != nil {
		known.draining = owner.draining
		owner.countsGRPC.Store(true)
		leave = owner.enter(owner.methods[method], stream)
	}
	ctx = context.WithValue(ctx, requestKey{}, known)
	if remaining.known && !stream {
		ctx, cancel = context.WithTimeout(ctx, remaining.time)
	}
	return ctx, func(panicked any, err error) error {
		defer leave()
		defer cancel()
		if owner == nil { // a server that no Service serves
			owner = &Service{log: slog.Default()}
		}
		if panicked != nil {
			err = owner.panicked(ctx, panicked)
		}
		return owner.tellGRPC(ctx, err)
	}
}

// tellGRPC returns what a gRPC caller is told of a failure. A status of the handler's own making stays as it is.
func (s *Service) tellGRPC(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	var own *Error
	if !errors.As(err, &own) {
		if foreign, ok := status.FromError(err); ok {
			return foreign.Err()
		}
	}
	e := s.tell(ctx, err)
	if e.inHeader() {
		_ = grpc.SetTrailer(ctx, metadata.Pairs(headerReason, e.Reason)) // fails only outside of a call
	}
	return e.GRPCStatus().Err()
}

// ownedListener marks the connections of a gRPC server, so that a call knows the service it came to.
type ownedListener struct {
	net.Listener
	owner *Service
}

func (l ownedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return ownedConn{conn, l.owner}, nil
}

type ownedConn struct {
	net.Conn
	owner *Service
}

func (c ownedConn) LocalAddr() net.Addr { return ownedAddr{c.Conn.LocalAddr(), c.owner} }

type ownedAddr struct {
	net.Addr
	owner *Service
}
