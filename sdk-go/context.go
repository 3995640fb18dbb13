package synego

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"strconv"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

// The headers that an SDK reads and sets.
const (
	headerRequestID      = "X-Request-Id"
	headerTraceparent    = "Traceparent"
	headerTracestate     = "Tracestate"
	headerBaggage        = "Baggage"
	headerTimeout        = "X-Synego-Timeout"
	headerConnectTimeout = "Connect-Timeout-Ms"
	headerGRPCTimeout    = "Grpc-Timeout"
	headerPriority       = "X-Synego-Priority"
	headerCaller         = "X-Synego-Caller"
)

// Priority says what is dropped first when there is too much to do. A service may only lower it.
type Priority string

// The priorities, most important first. A request that names none is normal.
const (
	PriorityCritical   Priority = "critical"
	PriorityNormal     Priority = "normal"
	PriorityBackground Priority = "background"
)

func (p Priority) rank() int {
	switch p {
	case PriorityCritical:
		return 2
	case PriorityBackground:
		return 0
	}
	return 1
}

// Trace is the place of a request in a distributed trace, after W3C Trace Context.
type Trace struct {
	// TraceID is 32 lower-case hex digits.
	TraceID string
	// ParentID is the span that sent the request: 16 lower-case hex digits.
	ParentID string
	// Sampled says whether the trace is recorded.
	Sampled bool
	// State is the tracestate that came along, or empty.
	State string
}

// Ctx is what one request knows, besides the deadline and the cancellation of its [context.Context].
type Ctx struct {
	// RequestID is the same in every service that the request passes; empty when nobody set one.
	RequestID string
	// Trace is the request's own, or a new one where none came.
	Trace Trace
	// Baggage is passed on untouched; never decide access on it.
	Baggage string
	// Priority is empty when the request named none, which counts as normal.
	Priority Priority
	// Caller is who asks, as the sidecar knows it from TLS, such as `spiffe://shop/svc/web`; empty without a mesh.
	Caller string
	// Protocol is "http" or "grpc".
	Protocol string
	// Handler is the pattern or the gRPC method that serves the request; empty under a foreign router.
	Handler string

	draining <-chan struct{}
}

// Draining is closed when the instance begins to drain: a stream should then come to its end. It is nil, and so never
// ready, outside of a [Service].
func (c Ctx) Draining() <-chan struct{} { return c.draining }

type (
	requestKey  struct{}
	priorityKey struct{}
)

// request is the Ctx of a request as it goes through this process. The handler is known only once it is routed.
type request struct {
	Ctx
	handler atomic.Pointer[string]
}

// FromContext returns what the request of ctx knows. It is false outside of a request. Under a gRPC server without
// [ServerOptions] it reads the incoming metadata.
func FromContext(ctx context.Context) (Ctx, bool) {
	if r, ok := ctx.Value(requestKey{}).(*request); ok {
		known := r.Ctx
		if handler := r.handler.Load(); handler != nil {
			known.Handler = *handler
		}
		return known, true
	}
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		r, _ := readRequest(metadataGet(md), "grpc")
		if owner := ownerOf(ctx); owner != nil {
			r.draining = owner.draining
		}
		return r.Ctx, true
	}
	return Ctx{}, false
}

// WithPriority returns a context whose calls go out with a priority not above this one. It never raises what the
// request came with.
func WithPriority(ctx context.Context, priority Priority) context.Context {
	return context.WithValue(ctx, priorityKey{}, priority)
}

// readRequest reads what the headers of a request say, and the time that is left for it (false: no deadline).
func readRequest(get func(string) string, protocol string) (*request, remaining) {
	r := &request{Ctx: Ctx{Protocol: protocol, Baggage: get(headerBaggage), Caller: get(headerCaller)}}
	if id := get(headerRequestID); isRequestID(id) {
		r.RequestID = id
	}
	r.Trace = traceOf(get(headerTraceparent), get(headerTracestate))
	switch priority := Priority(get(headerPriority)); priority {
	case PriorityCritical, PriorityNormal, PriorityBackground:
		r.Priority = priority
	}
	return r, remainingOf(get)
}

// isRequestID says whether an id is 1 to 128 visible characters of ASCII.
func isRequestID(id string) bool {
	for i := range len(id) {
		if id[i] <= ' ' || id[i] > '~' {
			return false
		}
	}
	return id != "" && len(id) <= 128
}

// traceOf returns the trace that came, or a new one without the tracestate.
func traceOf(traceparent, tracestate string) Trace {
	if trace, ok := parseTraceparent(traceparent); ok {
		trace.State = tracestate
		return trace
	}
	return Trace{TraceID: randomHex(16), Sampled: true}
}

// parseTraceparent reads a traceparent: version 00 exactly, later versions by their prefix.
func parseTraceparent(text string) (Trace, bool) {
	const length = 55
	if len(text) < length || text[2] != '-' || text[35] != '-' || text[52] != '-' {
		return Trace{}, false
	}
	version, traceID, parentID, flags := text[:2], text[3:35], text[36:52], text[53:55]
	for _, part := range []string{version, traceID, parentID, flags} {
		if strings.Trim(part, "0123456789abcdef") != "" {
			return Trace{}, false
		}
	}
	if version == "ff" || strings.Trim(traceID, "0") == "" || strings.Trim(parentID, "0") == "" {
		return Trace{}, false
	}
	if len(text) > length && (version == "00" || text[length] != '-') {
		return Trace{}, false
	}
	bits, _ := strconv.ParseUint(flags, 16, 8) // two hex digits, checked above
	return Trace{TraceID: traceID, ParentID: parentID, Sampled: bits&1 == 1}, true
}

func isTraceparent(text string) bool {
	_, ok := parseTraceparent(text)
	return ok
}

// randomHex returns n random bytes, never all zero, in hex.
func randomHex(n int) string {
	bytes := make([]byte, n)
	for {
		_, _ = rand.Read(bytes) // never fails: it ends the program instead
		for _, b := range bytes {
			if b != 0 {
				return hex.EncodeToString(bytes)
			}
		}
	}
}

// carried calls set with each header that a call made in ctx takes along, the deadline apart.
func carried(ctx context.Context, set func(name, value string)) {
	known, inside := FromContext(ctx)
	if !inside {
		known.Trace = traceOf("", "")
	}
	flags := "00"
	if known.Trace.Sampled {
		flags = "01"
	}
	set(headerTraceparent, "00-"+known.Trace.TraceID+"-"+randomHex(8)+"-"+flags)
	for _, header := range [][2]string{
		{headerTracestate, known.Trace.State},
		{headerRequestID, known.RequestID},
		{headerBaggage, known.Baggage},
		{headerPriority, string(priorityOf(ctx, known.Priority))},
	} {
		if header[1] != "" {
			set(header[0], header[1])
		}
	}
}

// priorityOf returns the priority of a call: the lower of what came and what the program asks for.
func priorityOf(ctx context.Context, incoming Priority) Priority {
	if asked, ok := ctx.Value(priorityKey{}).(Priority); ok && asked.rank() < incoming.rank() {
		return asked
	}
	return incoming
}

func metadataGet(md metadata.MD) func(string) string {
	return func(name string) string {
		if values := md.Get(name); len(values) > 0 {
			return values[0]
		}
		return ""
	}
}

// ownerOf returns the service whose listener took the gRPC request of ctx.
func ownerOf(ctx context.Context) *Service {
	if from, ok := peer.FromContext(ctx); ok {
		if addr, ok := from.LocalAddr.(ownedAddr); ok {
			return addr.owner
		}
	}
	return nil
}
