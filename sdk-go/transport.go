package synego

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"
)

// limitKey holds the limit of one call, where it differs from the client's.
type limitKey struct{}

// transport is the way of HTTP calls by name.
type transport struct{ client *Client }

func (t *transport) RoundTrip(request *http.Request) (*http.Response, error) {
	service := request.URL.Host
	if request.URL.Scheme != "http" || !isServiceName(service) {
		return http.DefaultTransport.RoundTrip(request)
	}
	host, err := t.client.world.resolve(service)
	if err != nil {
		return nil, closing(request, err)
	}
	limit := t.client.callTimeout
	if own, ok := request.Context().Value(limitKey{}).(time.Duration); ok {
		limit = own
	}
	left, _ := left(request.Context(), limit) // the limit is never 0
	if left < time.Millisecond {
		return nil, closing(request, timeOver(service, context.DeadlineExceeded))
	}
	ctx, stop, release := untilHead(request.Context(), left)
	out := request.Clone(ctx)
	out.URL.Host, out.Host = host, service
	asked := Priority(request.Header.Get(headerPriority))
	out.Header.Del(headerPriority)
	carried(request.Context(), func(name, value string) {
		if name != headerTraceparent || !isTraceparent(out.Header.Get(headerTraceparent)) {
			out.Header.Set(name, value) // a trace of the program's own, as OpenTelemetry sets it, stays
		}
	})
	lowerPriority(out.Header, asked)
	tellTimeout(out.Header, left, request.Header.Get("Connect-Protocol-Version") != "")
	response, err := t.client.base.RoundTrip(out)
	over := !stop()
	if err != nil {
		release()
		return nil, callError(request.Context(), service, host, over, err)
	}
	response.Request = request
	response.Body = &releasing{ReadCloser: response.Body, release: release}
	return response, nil
}

// lowerPriority lets a header that the program set lower what the context carries.
func lowerPriority(header http.Header, asked Priority) {
	incoming := Priority(header.Get(headerPriority))
	if asked != "" && asked.rank() < incoming.rank() {
		header.Set(headerPriority, string(asked))
	}
}

// closing closes the body of a request that is not sent, as a RoundTripper must.
func closing(request *http.Request, err error) error {
	if request.Body != nil {
		_ = request.Body.Close()
	}
	return err
}

// untilHead bounds a call until the head of its answer: stop says so, and is false when the time was over before;
// release ends the call altogether.
func untilHead(parent context.Context, left time.Duration) (ctx context.Context, stop func() bool, release func()) {
	ctx, cancel := context.WithCancelCause(parent)
	timer := time.AfterFunc(left, func() { cancel(context.DeadlineExceeded) })
	return ctx, timer.Stop, func() { cancel(context.Canceled) }
}

// releasing ends the context of a call with its body.
type releasing struct {
	io.ReadCloser
	release func()
}

func (r *releasing) Close() error {
	err := r.ReadCloser.Close()
	r.release()
	return err
}

// Write keeps upgraded connections writable.
func (r *releasing) Write(bytes []byte) (int, error) {
	if writer, ok := r.ReadCloser.(io.Writer); ok {
		return writer.Write(bytes)
	}
	return 0, errors.New("the body of this answer is read-only")
}

func timeOver(service string, cause error) *Error {
	e := Errorf(DeadlineExceeded, "no answer from %s in time", service).WithCause(cause)
	e.Service = service
	return e
}

// callError says why a call to a service got no answer.
func callError(ctx context.Context, service, host string, over bool, err error) error {
	if over || errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return timeOver(service, errors.Join(context.DeadlineExceeded, err))
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var dial *net.OpError
	e := Errorf(Unavailable, "the connection to %s broke", service).WithCause(err)
	if errors.As(err, &dial) && dial.Op == "dial" {
		e = reasonError(ReasonSidecarUnreachable, "cannot call %s: nothing listens at %s", service, host).WithCause(err)
	} else {
		e = e.WithRetry(RetryNever, 0) // it may have been read
	}
	e.Service = service
	return e
}
