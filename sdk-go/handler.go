package synego

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"reflect"
	"strings"
	"sync/atomic"

	synegov1 "github.com/lostabaddon/synegobase/sdk-go/internal/gen/synego/v1"
)

// maxBody bounds the body that a typed handler reads; bytes.
const maxBody = 10 << 20

// None is the input of a handler that reads nothing, and the output of one that answers with no body.
type None struct{}

// handler is one pattern and what answers it.
type handler struct {
	pattern   pattern
	serve     http.Handler
	status    int
	streaming bool
	byName    bool
	problems  []error
	running   atomic.Int64
}

func (h *handler) describe() *synegov1.Handler {
	text := h.pattern.text
	if rpc, ok := strings.CutPrefix(text, "POST "); ok && h.byName && !strings.HasPrefix(rpc, rpcPrefix) {
		text = rpc // a method of a .proto goes by its path
	}
	return &synegov1.Handler{
		Pattern: text, Model: synegov1.Model_MODEL_INLINE, Isolation: synegov1.Isolation_ISOLATION_SHARED, Streaming: h.streaming,
	}
}

// Handle answers a pattern with a plain [http.Handler]. Parameters are in [http.Request.PathValue].
func (s *Service) Handle(pattern string, serve http.Handler, options ...HandlerOption) {
	s.add(pattern, &handler{serve: serve}, options)
}

// Handle answers a pattern, `METHOD /path` with `{name}` for one segment and `{name...}` for the rest, with a typed
// function.
//
//   - In is filled from tags: `path:"id"` and `query:"page"` (texts, numbers, booleans, durations, [encoding.TextUnmarshaler];
//     pointers and slices in queries), and from the fields of a JSON body (`json:"name"`), at most 10 MiB.
//   - If In has a method `Validate() error`, it is asked last.
//   - Out is the JSON answer; [None] answers 204.
//   - Bad input is answered with 400, every mistake at once, and `invalid_body` (or `invalid_path` or `invalid_query`
//     where nothing else is wrong). An [*Error] is answered as it says; any
//     other error or a panic is 500 with a fixed text, and its own text is logged.
//
// A pattern that is malformed, or takes the same requests as an earlier one, makes Run fail.
func Handle[In, Out any](s *Service, pattern string, fn func(context.Context, In) (Out, error), options ...HandlerOption) {
	h := &handler{}
	var plan *inputPlan
	s.add(pattern, h, options)
	plan, problems := planOf(reflect.TypeFor[In](), h.pattern)
	s.refuse(pattern, problems)
	h.serve = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in In
		if err := plan.read(r, &in); err != nil {
			s.fail(w, r, err, false)
			return
		}
		out, err := fn(r.Context(), in)
		if err != nil {
			s.fail(w, r, err, false)
			return
		}
		s.answer(w, r, h.status, out)
	})
}

// readBody reads a whole body, at most maxBody.
func readBody(r *http.Request) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	switch {
	case err != nil:
		return nil, Errorf(Cancelled, "the body was cut short").WithStatus(http.StatusBadRequest).WithCause(err)
	case len(text) > maxBody:
		return nil, Errorf(ResourceExhausted, "body of more than %d bytes", maxBody).
			WithStatus(http.StatusRequestEntityTooLarge).WithReason("body_too_large").WithRetry(RetryNever, 0)
	}
	return text, nil
}

// answer writes what a typed handler returned.
func (s *Service) answer(w http.ResponseWriter, r *http.Request, status int, out any) {
	if _, none := out.(None); none {
		if status == 0 {
			status = http.StatusNoContent
		}
		w.WriteHeader(status)
		return
	}
	text, err := encode(out, false)
	if err != nil {
		s.fail(w, r, fmt.Errorf("encode %T: %w", out, err), false)
		return
	}
	if status == 0 {
		status = http.StatusOK
	}
	w.Header().Set("Content-Type", contentJSON)
	s.write(w, r, status, append(text, '\n'))
}

func (s *Service) write(w http.ResponseWriter, r *http.Request, status int, text []byte) {
	w.WriteHeader(status)
	if _, err := w.Write(text); err != nil {
		s.log.DebugContext(r.Context(), "answer cut short", "error", err)
	}
}

// fail answers a request with an error, and logs the cause that the caller is not told.
func (s *Service) fail(w http.ResponseWriter, r *http.Request, err error, byName bool) {
	e := s.tell(r.Context(), err)
	writeError(w, e, byName)
}

// tell returns the error as the caller gets it, with the request's id, and logs its cause.
func (s *Service) tell(ctx context.Context, err error) *Error {
	e := *errorFrom(err)
	known, _ := FromContext(ctx)
	e.RequestID = known.RequestID
	if e.cause != nil {
		level := slog.LevelWarn
		if e.Code == Internal || e.Code == Unknown || e.Code == DataLoss {
			level = slog.LevelError
		}
		s.log.Log(ctx, level, "request failed", "reason", e.reason(), "error", e.cause.Error())
	}
	return &e
}
