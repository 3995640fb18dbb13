package synego

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	synegov1 "github.com/lostabaddon/synegobase/sdk-go/internal/gen/synego/v1"
)

// maxMessage bounds the text of a Fault; bytes.
const maxMessage = 1024

const headerReason = "X-Synego-Reason"

// Error is the one error of this package. A handler returns it to say what the caller is told; a call by name gives
// it to say what came back. Find it with [errors.As] and narrow on Code, Reason or Retry, never on Message.
type Error struct {
	// Code says what kind of failure this is.
	Code Code
	// Status is the HTTP status; 0 means the one of Code.
	Status int
	// Reason is a word of the mesh or the service's own, `[a-z][a-z0-9_]{0,63}`; empty means the word of Code.
	Reason string
	// Message is for people: lower case, no full stop, never a secret. It is sent to the caller.
	Message string
	// Blame says whose fault it is.
	Blame Blame
	// Retry says whether a repeat helps.
	Retry Retry
	// RetryAfter is how long to wait before a repeat; 0 means not said.
	RetryAfter time.Duration
	// RequestID is the id of the request that failed, where known.
	RequestID string
	// Service is the service that failed; empty in an error that this program makes for its caller.
	Service string
	// FromMesh says that the mesh itself made this failure, and not the service.
	FromMesh bool

	cause error
	// received is true of an error that came from another service: passed on, its reason stays out of the header,
	// where it would speak of this instance.
	received bool
}

// Errorf makes an error with the defaults of its code for blame and retry. The text is sent to the caller; what is
// only for the log goes into [Error.WithCause].
func Errorf(code Code, format string, args ...any) *Error {
	meaning := code.meaning()
	return &Error{Code: code, Message: fmt.Sprintf(format, args...), Blame: meaning.blame, Retry: meaning.retry}
}

// reasonError makes an error of a reason of the mesh.
func reasonError(reason, format string, args ...any) *Error {
	return Errorf(manners[reason].code, format, args...).WithReason(reason)
}

// WithReason returns a copy with this reason, and with the blame and retry that belong to it when it is the mesh's.
// A reason that is no word of the grammar is left out: the word of the code then stands for it.
func (e *Error) WithReason(reason string) *Error {
	next := *e
	if !isReason(reason) {
		reason = ""
	}
	next.Reason = reason
	if manner, ok := manners[reason]; ok {
		next.Blame, next.Retry = manner.blame, manner.retry
	}
	return &next
}

// WithStatus returns a copy that leaves with this HTTP status (400–599) instead of its code's.
func (e *Error) WithStatus(status int) *Error { next := *e; next.Status = status; return &next }

// WithRetry returns a copy that tells the caller whether a repeat helps, and after how long (0: not said).
func (e *Error) WithRetry(retry Retry, after time.Duration) *Error {
	next := *e
	next.Retry, next.RetryAfter = retry, after
	return &next
}

// WithCause returns a copy that wraps cause: it is logged and found by [errors.Is], and never sent.
func (e *Error) WithCause(cause error) *Error { next := *e; next.cause = cause; return &next }

// Error returns reason and message, and the cause where there is one.
func (e *Error) Error() string {
	text := e.reason() + ": " + e.Message
	if e.Service != "" {
		text = e.Service + ": " + text
	}
	if e.cause != nil {
		text += ": " + e.cause.Error()
	}
	return text
}

// Unwrap returns the cause, or nil.
func (e *Error) Unwrap() error { return e.cause }

func (e *Error) reason() string {
	if e.Reason != "" {
		return e.Reason
	}
	return e.Code.String()
}

func (e *Error) status() int {
	if e.Status >= 400 && e.Status <= 599 {
		return e.Status
	}
	return e.Code.Status()
}

// inHeader says whether the reason also goes into x-synego-reason.
func (e *Error) inHeader() bool { return manners[e.Reason].header && !e.received }

// GRPCStatus returns the error as gRPC sends it, with a Fault as detail. It makes an *Error work as the return value
// of any gRPC handler.
func (e *Error) GRPCStatus() *status.Status {
	message := clip(e.Message, maxMessage)
	bare := status.New(codes.Code(e.Code), message)
	blame := e.Blame
	if e.received {
		blame = BlameUpstream
	}
	full, err := bare.WithDetails(&synegov1.Fault{
		Code: synegov1.Code(e.Code), Reason: e.reason(), Message: message, Blame: blame.proto(), Retry: e.Retry.proto(),
		RetryAfterMs: uint32(min(max(e.RetryAfter.Milliseconds(), 0), 3_600_000)), RequestId: e.RequestID, Service: e.Service,
		FromMesh: e.FromMesh,
	})
	if err != nil { // a code of OK takes no details
		return bare
	}
	return full
}

var reasonWord = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)

func isReason(word string) bool { return reasonWord.MatchString(word) }

// errorFrom returns what the caller of a handler is told of its failure: an *Error as it is, the two of contexts by
// their codes, and anything else as an internal error whose text stays here, as the cause.
func errorFrom(err error) *Error {
	var own *Error
	switch {
	case errors.As(err, &own):
		return own
	case errors.Is(err, context.DeadlineExceeded):
		return Errorf(DeadlineExceeded, "the time for this request was over").WithCause(err)
	case errors.Is(err, context.Canceled):
		return Errorf(Cancelled, "the caller gave up").WithCause(err)
	}
	return Errorf(Internal, "internal error").WithCause(err)
}

// body is the JSON form of an error. Code is a number on HTTP and a word in calls by name, which also name the text
// `message` instead of `msg`.
type body struct {
	Code      json.RawMessage `json:"code"`
	Msg       string          `json:"msg,omitempty"`
	Message   string          `json:"message,omitempty"`
	Reason    string          `json:"reason,omitempty"`
	RequestID string          `json:"request_id,omitempty"`
}

// writeError answers a request with an error: in the form of calls by name when byName, else in HTTP's.
func writeError(w http.ResponseWriter, e *Error, byName bool) {
	answer := body{Reason: e.reason(), RequestID: e.RequestID}
	if byName {
		answer.Code, answer.Message = json.RawMessage(strconv.Quote(e.Code.String())), e.Message
	} else {
		answer.Code, answer.Msg = json.RawMessage(strconv.Itoa(e.status())), e.Message
	}
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Del("Content-Length")
	if e.RetryAfter > 0 {
		header.Set("Retry-After", strconv.Itoa(int(math.Ceil(e.RetryAfter.Seconds()))))
	}
	if e.inHeader() {
		header.Set(headerReason, e.Reason)
	}
	w.WriteHeader(e.status())
	_ = json.NewEncoder(w).Encode(answer) // a client that is gone needs no answer
}

// maxErrorBody bounds what is read of a failed answer; bytes.
const maxErrorBody = 64 << 10

// ErrorOf returns what an HTTP answer of a service says went wrong, and nil for a status below 400. It reads and
// closes the body of a failed answer. A body in another form than the mesh's is not shown in the message.
func ErrorOf(response *http.Response) error {
	if response.StatusCode < 400 {
		return nil
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(response.Body, maxErrorBody)) // a broken body is one in another form
	service := ""
	if response.Request != nil {
		service = response.Request.URL.Hostname()
	}
	return readError(service, response.StatusCode, response.Header, text)
}

func readError(service string, status int, header http.Header, text []byte) *Error {
	e := &Error{Code: codeOfStatus(status), Status: status, Service: service, received: true}
	var answer body
	if kind, _, _ := mime.ParseMediaType(header.Get("Content-Type")); kind == "application/json" && json.Unmarshal(text, &answer) == nil {
		e.Message, e.RequestID = answer.Msg+answer.Message, answer.RequestID
		if isReason(answer.Reason) {
			e.Reason = answer.Reason
		}
		var word string
		if json.Unmarshal(answer.Code, &word) == nil {
			if code, known := codeOfWord(word); known {
				e.Code = code
			}
		}
	}
	if reason := header.Get(headerReason); isReason(reason) {
		e.Reason, e.FromMesh = reason, true
	}
	if e.Message == "" {
		e.Message = fmt.Sprintf("%s answered with status %d", service, status)
	}
	if seconds, err := strconv.Atoi(header.Get("Retry-After")); err == nil && seconds > 0 {
		e.RetryAfter = time.Duration(min(seconds, 3600)) * time.Second
	}
	e.settle(status >= 500)
	return e
}

// settle fills in what an error that came from elsewhere did not say: its blame as the caller sees it, its retry and
// its reason.
func (e *Error) settle(upstream bool) {
	meaning := e.Code.meaning()
	e.Blame, e.Retry = meaning.blame, meaning.retry
	if upstream || e.Blame == BlameLocal {
		e.Blame = BlameUpstream
	}
	if manner, ok := manners[e.Reason]; ok {
		e.Retry = manner.retry
	}
	e.Reason = e.reason()
}

// errorOfStatus returns what a failed gRPC call to service says; trailer is what came with it.
func errorOfStatus(service string, state *status.Status, trailer metadata.MD) *Error {
	e := &Error{Code: codeOfGRPC(state.Code()), Message: state.Message(), Service: service, received: true}
	if reason := trailer.Get(headerReason); len(reason) > 0 && isReason(reason[0]) {
		e.Reason, e.FromMesh = reason[0], true
	}
	e.settle(false)
	for _, detail := range state.Details() {
		fault, ok := detail.(*synegov1.Fault)
		if !ok {
			continue
		}
		if isReason(fault.GetReason()) {
			e.Reason = fault.GetReason()
		}
		if fault.GetRetry() != synegov1.Retry_RETRY_UNSPECIFIED {
			e.Retry = retryOfProto(fault.GetRetry())
		}
		if fault.GetBlame() == synegov1.Blame_BLAME_CALLER {
			e.Blame = BlameCaller
		}
		e.RetryAfter = time.Duration(fault.GetRetryAfterMs()) * time.Millisecond
		e.RequestID, e.FromMesh = fault.GetRequestId(), e.FromMesh || fault.GetFromMesh()
		if fault.GetService() != "" {
			e.Service = fault.GetService()
		}
	}
	return e
}
