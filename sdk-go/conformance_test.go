package synego

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	synegov1 "github.com/lostabaddon/synegobase/sdk-go/internal/gen/synego/v1"
)

// runVectors runs every case of a file that all SDKs share. A kind without a function fails.
func runVectors(t *testing.T, file string, kinds map[string]func(t *testing.T, in, out json.RawMessage)) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "tests", "conformance", "vectors", file))
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		Cases []struct {
			Name, Kind string
			In, Out    json.RawMessage
		}
	}
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatalf("%s: %s", file, err)
	}
	if len(vectors.Cases) == 0 {
		t.Fatalf("%s has no cases", file)
	}
	for _, c := range vectors.Cases {
		t.Run(c.Kind+"/"+c.Name, func(t *testing.T) {
			run := kinds[c.Kind]
			if run == nil {
				t.Fatalf("unknown kind %q", c.Kind)
			}
			run(t, c.In, c.Out)
		})
	}
}

// read fills a value from a part of a case, which may have no member that the value does not know.
func read[T any](t *testing.T, text json.RawMessage) T {
	t.Helper()
	var value T
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&value); err != nil {
		t.Fatalf("%s: %s", text, err)
	}
	return value
}

// same compares a value, as JSON, with the part of a case.
func same(t *testing.T, got any, want json.RawMessage) {
	t.Helper()
	text, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	var gotValue, wantValue any
	if err := errors.Join(json.Unmarshal(text, &gotValue), json.Unmarshal(want, &wantValue)); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(gotValue, wantValue) {
		t.Errorf("got  %s\nwant %s", text, want)
	}
}

type object = map[string]any

func TestEveryVectorFileIsRun(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "tests", "conformance", "vectors", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	known := "backoff.json deadline.json errors.json hello.json patterns.json trace.json"
	if len(files) != len(strings.Fields(known)) {
		t.Errorf("files %v, known are %s", files, known)
	}
	for _, file := range files {
		if !strings.Contains(known, filepath.Base(file)) {
			t.Errorf("no test runs %s", file)
		}
	}
}

func TestPatternVectors(t *testing.T) {
	runVectors(t, "patterns.json", map[string]func(*testing.T, json.RawMessage, json.RawMessage){
		"parse": func(t *testing.T, in, out json.RawMessage) {
			parsed, err := parsePattern(read[struct{ Pattern string }](t, in).Pattern)
			if err != nil {
				same(t, object{"error": true}, out)
				return
			}
			segments := []object{}
			for _, segment := range parsed.segments {
				switch {
				case segment.rest:
					segments = append(segments, object{"rest": segment.name})
				case segment.name != "":
					segments = append(segments, object{"param": segment.name})
				default:
					segments = append(segments, object{"literal": segment.literal})
				}
			}
			same(t, object{"method": parsed.method, "segments": segments}, out)
		},
		"match": func(t *testing.T, in, out json.RawMessage) {
			request := read[struct {
				Patterns []string
				Request  string
			}](t, in)
			got := object{"pattern": nil}
			s := NewService("vectors")
			for _, pattern := range request.Patterns {
				s.Handle(pattern, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					params := object{}
					known, _ := FromContext(r.Context())
					parsed, _ := parsePattern(known.Handler) // declared above
					for _, segment := range parsed.segments {
						if segment.name != "" {
							params[segment.name] = r.PathValue(segment.name)
						}
					}
					got["pattern"], got["params"] = known.Handler, params
				}))
			}
			if len(s.problems) > 0 {
				t.Fatal(s.problems)
			}
			method, target, _ := strings.Cut(request.Request, " ")
			recorder := httptest.NewRecorder()
			s.ServeHTTP(recorder, httptest.NewRequest(method, target, nil))
			if got["pattern"] == nil {
				got["status"] = recorder.Code
				if allow := recorder.Header().Get("Allow"); allow != "" {
					got["allow"] = strings.Split(allow, ", ")
				}
			}
			same(t, got, out)
		},
		"conflict": func(t *testing.T, in, out json.RawMessage) {
			s := NewService("vectors")
			for _, pattern := range read[struct{ Patterns []string }](t, in).Patterns {
				s.Handle(pattern, http.NotFoundHandler())
			}
			same(t, object{"conflict": s.settle(nil) != nil}, out)
		},
	})
}

// vectorError is an error as the vectors write it.
type vectorError struct {
	Code, Message, Reason, Service, Foreign string
	RequestID                               string `json:"request_id"`
	RetryAfterMs                            int    `json:"retry_after_ms"`
	Status                                  int
}

// leaving returns the error as a handler's caller gets it.
func (v vectorError) leaving(t *testing.T) *Error {
	t.Helper()
	if v.Foreign != "" {
		e := *errorFrom(errors.New(v.Foreign))
		e.RequestID = v.RequestID
		return &e
	}
	code, ok := codeOfWord(v.Code)
	if !ok {
		t.Fatalf("unknown code %q", v.Code)
	}
	e := Errorf(code, "%s", v.Message)
	if v.Reason != "" {
		e = e.WithReason(v.Reason)
	}
	if v.Status != 0 {
		e = e.WithStatus(v.Status)
	}
	e.RetryAfter = time.Duration(v.RetryAfterMs) * time.Millisecond
	e.RequestID, e.Service = v.RequestID, v.Service
	return e
}

func TestErrorVectors(t *testing.T) {
	leave := func(byName bool) func(*testing.T, json.RawMessage, json.RawMessage) {
		return func(t *testing.T, in, out json.RawMessage) {
			recorder := httptest.NewRecorder()
			writeError(recorder, read[struct{ Error vectorError }](t, in).Error.leaving(t), byName)
			headers := object{}
			for _, name := range []string{"content-type", "retry-after", "x-synego-reason"} {
				if value := recorder.Header().Get(name); value != "" {
					headers[name] = value
				}
			}
			same(t, object{"status": recorder.Code, "headers": headers, "body": json.RawMessage(recorder.Body.Bytes())}, out)
		}
	}
	runVectors(t, "errors.json", map[string]func(*testing.T, json.RawMessage, json.RawMessage){
		"code": func(t *testing.T, in, out json.RawMessage) {
			code, ok := codeOfWord(read[struct{ Code string }](t, in).Code)
			if !ok {
				t.Fatal("unknown code")
			}
			e := Errorf(code, "")
			same(t, object{"number": code, "status": code.Status(), "blame": e.Blame.String(), "retry": e.Retry.String()}, out)
		},
		"status": func(t *testing.T, in, out json.RawMessage) {
			same(t, object{"code": codeOfStatus(read[struct{ Status int }](t, in).Status).String()}, out)
		},
		"reason": func(t *testing.T, in, out json.RawMessage) {
			reason := read[struct{ Reason string }](t, in).Reason
			if _, known := manners[reason]; !known {
				t.Fatalf("unknown reason %q", reason)
			}
			e := reasonError(reason, "")
			if reason == ReasonNoHandler { // its status is said where it is made: 404, or 405 for a known path
				e = e.WithStatus(http.StatusNotFound)
			}
			same(t, object{
				"code": e.Code.String(), "status": e.status(), "retry": e.Retry.String(), "blame": e.Blame.String(), "header": e.inHeader(),
			}, out)
		},
		"http":    leave(false),
		"connect": leave(true),
		"grpc": func(t *testing.T, in, out json.RawMessage) {
			state := read[struct{ Error vectorError }](t, in).Error.leaving(t).GRPCStatus()
			fault, err := protojson.Marshal(state.Details()[0].(proto.Message))
			if err != nil {
				t.Fatal(err)
			}
			same(t, object{"number": state.Code(), "message": state.Message(), "fault": json.RawMessage(fault)}, out)
		},
		"read": func(t *testing.T, in, out json.RawMessage) {
			answer := read[struct {
				Service, Body string
				Status        int
				Headers       map[string]string
			}](t, in)
			header := http.Header{}
			for name, value := range answer.Headers {
				header.Set(name, value)
			}
			e := readError(answer.Service, answer.Status, header, []byte(answer.Body))
			got := object{
				"code": e.Code.String(), "status": e.status(), "reason": e.Reason, "message": e.Message, "blame": e.Blame.String(),
				"retry": e.Retry.String(), "service": e.Service, "from_mesh": e.FromMesh,
			}
			if e.RequestID != "" {
				got["request_id"] = e.RequestID
			}
			if e.RetryAfter != 0 {
				got["retry_after_ms"] = e.RetryAfter.Milliseconds()
			}
			same(t, got, out)
		},
		"word": func(t *testing.T, in, out json.RawMessage) {
			same(t, object{"ok": isReason(read[struct{ Reason string }](t, in).Reason)}, out)
		},
	})
}

func headerGetter(headers map[string]string) func(string) string {
	header := http.Header{}
	for name, value := range headers {
		header.Set(name, value)
	}
	return header.Get
}

func TestDeadlineVectors(t *testing.T) {
	runVectors(t, "deadline.json", map[string]func(*testing.T, json.RawMessage, json.RawMessage){
		"grpc_timeout": func(t *testing.T, in, out json.RawMessage) {
			timeout, ok := parseGRPCTimeout(read[struct{ Value string }](t, in).Value)
			got := object{"ms": nil}
			if ok {
				got["ms"] = timeout.Milliseconds()
			}
			same(t, got, out)
		},
		"left": func(t *testing.T, in, out json.RawMessage) {
			c := read[struct {
				Headers       map[string]string
				ElapsedMs     int `json:"elapsed_ms"`
				CallTimeoutMs int `json:"call_timeout_ms"`
			}](t, in)
			ctx, cancel := context.Background(), func() {}
			elapsed := time.Duration(c.ElapsedMs) * time.Millisecond
			if came := remainingOf(headerGetter(c.Headers)); came.known {
				ctx, cancel = context.WithTimeout(ctx, came.time-elapsed)
			}
			defer cancel()
			left, bounded := left(ctx, time.Duration(c.CallTimeoutMs)*time.Millisecond)
			got := object{"left_ms": nil}
			if bounded { // the clock went on for some microseconds since the deadline was set
				got["left_ms"] = left.Round(50 * time.Millisecond).Milliseconds()
			}
			same(t, got, out)
		},
		"write": func(t *testing.T, in, out json.RawMessage) {
			c := read[struct {
				LeftMs    *int `json:"left_ms"`
				Transport string
			}](t, in)
			header := http.Header{}
			if c.LeftMs != nil {
				tellTimeout(header, time.Duration(*c.LeftMs)*time.Millisecond, c.Transport == "connect")
			}
			same(t, object{"headers": flat(header)}, out)
		},
	})
}

func flat(header http.Header) map[string]string {
	flat := map[string]string{}
	for name := range header {
		flat[strings.ToLower(name)] = header.Get(name)
	}
	return flat
}

func TestTraceVectors(t *testing.T) {
	within := func(headers map[string]string) context.Context {
		known, _ := readRequest(headerGetter(headers), "http")
		return context.WithValue(context.Background(), requestKey{}, known)
	}
	carry := func(ctx context.Context) map[string]string {
		header := http.Header{}
		carried(ctx, header.Set)
		return flat(header)
	}
	orNull := func(text string) any {
		if text == "" {
			return nil
		}
		return text
	}
	runVectors(t, "trace.json", map[string]func(*testing.T, json.RawMessage, json.RawMessage){
		"traceparent": func(t *testing.T, in, out json.RawMessage) {
			c := read[struct{ Traceparent, Tracestate *string }](t, in)
			headers := map[string]string{}
			if c.Traceparent != nil {
				headers["traceparent"] = *c.Traceparent
			}
			if c.Tracestate != nil {
				headers["tracestate"] = *c.Tracestate
			}
			known, _ := FromContext(within(headers))
			trace := known.Trace
			got := object{"kept": trace.ParentID != "", "tracestate": orNull(trace.State)}
			if trace.ParentID != "" {
				got["trace_id"], got["parent_id"], got["sampled"] = trace.TraceID, trace.ParentID, trace.Sampled
			} else if !isTraceparent("00-" + trace.TraceID + "-00f067aa0ba902b7-01") {
				t.Errorf("the new trace id %q is not valid", trace.TraceID)
			}
			same(t, got, out)
		},
		"request_id": func(t *testing.T, in, out json.RawMessage) {
			headers := map[string]string{}
			if value := read[struct{ Value *string }](t, in).Value; value != nil {
				headers["x-request-id"] = *value
			}
			known, _ := FromContext(within(headers))
			same(t, object{"request_id": orNull(known.RequestID)}, out)
		},
		"carry": func(t *testing.T, in, out json.RawMessage) {
			c := read[struct{ Headers map[string]string }](t, in)
			want := read[struct {
				Headers map[string]string
				TraceID *string `json:"trace_id"`
				Flags   string
			}](t, out)
			got := carry(within(c.Headers))
			sent, ok := parseTraceparent(got["traceparent"])
			if !ok || !strings.HasPrefix(got["traceparent"], "00-") || !strings.HasSuffix(got["traceparent"], "-"+want.Flags) {
				t.Fatalf("traceparent %q, flags wanted %s", got["traceparent"], want.Flags)
			}
			came, _ := parseTraceparent(c.Headers["traceparent"])
			if want.TraceID != nil && sent.TraceID != *want.TraceID || want.TraceID == nil && sent.TraceID == came.TraceID {
				t.Errorf("trace id %q", sent.TraceID)
			}
			if sent.ParentID == came.ParentID {
				t.Error("the parent id is not new")
			}
			delete(got, "traceparent")
			if !reflect.DeepEqual(got, want.Headers) {
				t.Errorf("got %v, want %v", got, want.Headers)
			}
		},
		"priority": func(t *testing.T, in, out json.RawMessage) {
			c := read[struct{ Incoming, Asked *string }](t, in)
			headers := map[string]string{}
			if c.Incoming != nil {
				headers["x-synego-priority"] = *c.Incoming
			}
			ctx := within(headers)
			if c.Asked != nil {
				ctx = WithPriority(ctx, Priority(*c.Asked))
			}
			same(t, object{"sent": orNull(carry(ctx)["x-synego-priority"])}, out)
		},
	})
}

func TestHelloVectors(t *testing.T) {
	protocols := map[string]synegov1.Protocol{
		"http1": synegov1.Protocol_PROTOCOL_HTTP1, "http2": synegov1.Protocol_PROTOCOL_HTTP2,
		"grpc": synegov1.Protocol_PROTOCOL_GRPC, "tcp": synegov1.Protocol_PROTOCOL_TCP,
	}
	type vectorCheck struct {
		Name, Cause  string
		Required, OK bool
	}
	stateFor := func(t *testing.T, phase string, checks []vectorCheck) *synegov1.State {
		t.Helper()
		box := stateBox{changed: make(chan struct{}, 1)}
		if phase != "" {
			value, ok := synegov1.Phase_value["PHASE_"+strings.ToUpper(phase)]
			if !ok {
				t.Fatalf("unknown phase %q", phase)
			}
			box.set(synegov1.Phase(value))
		}
		var own []*check
		for _, c := range checks {
			one := &check{name: c.Name, required: c.Required}
			if c.OK {
				one.took(nil)
			} else {
				one.took(errors.New(c.Cause))
			}
			own = append(own, one)
		}
		return box.message(own)
	}
	runVectors(t, "hello.json", map[string]func(*testing.T, json.RawMessage, json.RawMessage){
		"hello": func(t *testing.T, in, out json.RawMessage) {
			c := read[struct {
				Service, Instance, Version, Phase string
				Generation                        uint32
				AttachmentID                      string `json:"attachment_id"`
				Listeners                         []struct {
					Protocol, Address string
					KeepAliveMs       uint32 `json:"keep_alive_ms"`
				}
				Handlers []struct {
					Pattern, RPC string
					TimeoutMs    uint32 `json:"timeout_ms"`
					Streaming    bool
				}
				Routes []string
				Checks []vectorCheck
			}](t, in)
			s := NewService(c.Service, WithVersion(c.Version), WithRoutes(c.Routes...), WithEnv(func(name string) string {
				return map[string]string{"SYNEGO_INSTANCE": c.Instance, "SYNEGO_GENERATION": fmt.Sprint(c.Generation)}[name]
			}))
			for _, h := range c.Handlers {
				var options []HandlerOption
				if h.Streaming {
					options = append(options, Streaming())
				}
				if h.RPC != "" {
					RPC(s, h.RPC, func(context.Context, None) (None, error) { return None{}, nil })
				} else {
					s.Handle(h.Pattern, http.NotFoundHandler(), options...)
				}
			}
			if err := s.settle(nil); err != nil {
				t.Fatal(err)
			}
			var listeners []*synegov1.Listener
			for _, l := range c.Listeners {
				listeners = append(listeners, &synegov1.Listener{Protocol: protocols[l.Protocol], Address: l.Address, KeepAliveMs: l.KeepAliveMs})
			}
			hello := s.hello(listeners, c.AttachmentID)
			hello.State = stateFor(t, c.Phase, c.Checks)
			for i, h := range c.Handlers { // this SDK declares no time limits yet
				hello.Handlers.Handler[i].TimeoutMs = h.TimeoutMs
			}
			hello.Pid, hello.Sdk = 0, ""
			text, err := protojson.Marshal(hello)
			if err != nil {
				t.Fatal(err)
			}
			same(t, json.RawMessage(text), out)
		},
		"phase": func(t *testing.T, in, out json.RawMessage) {
			c := read[struct {
				Phase  string
				Checks []vectorCheck
			}](t, in)
			same(t, object{"phase": stateFor(t, c.Phase, c.Checks).GetPhase().String()}, out)
		},
		"check": func(t *testing.T, in, out json.RawMessage) {
			one := &check{name: "x"}
			var got []bool
			for _, passed := range read[struct{ Results []bool }](t, in).Results {
				if passed {
					one.took(nil)
				} else {
					one.took(errors.New("down"))
				}
				got = append(got, one.message().GetOk())
			}
			same(t, object{"ok": got}, out)
		},
		"name": func(t *testing.T, in, out json.RawMessage) {
			same(t, object{"ok": NewService(read[struct{ Service string }](t, in).Service).settle(nil) == nil}, out)
		},
	})
}

func TestBackOffVectors(t *testing.T) {
	runVectors(t, "backoff.json", map[string]func(*testing.T, json.RawMessage, json.RawMessage){
		"delay": func(t *testing.T, in, out json.RawMessage) {
			attempt := read[struct{ Attempt int }](t, in).Attempt
			bounds := read[struct {
				Min int `json:"min_ms"`
				Max int `json:"max_ms"`
			}](t, out)
			for range 1000 {
				delay := backOff(attempt)
				if delay < time.Duration(bounds.Min)*time.Millisecond || delay > time.Duration(bounds.Max)*time.Millisecond {
					t.Fatalf("delay %s, bounds %+v", delay, bounds)
				}
			}
		},
		"end": func(t *testing.T, in, out json.RawMessage) {
			c := read[struct {
				End    string
				Status *int
			}](t, in)
			words := map[after]string{afterWait: "wait", afterNow: "now", afterRefused: "refused"}
			got := afterNow // what `moved` does without a status; its way through a stream has a test of its own
			switch {
			case c.Status != nil:
				got = afterStatus(codes.Code(*c.Status))
			case c.End == "closed":
				got = afterStatus(status.Code(nil))
			case c.End != "moved":
				t.Fatalf("unknown end %q", c.End)
			}
			same(t, object{"next": words[got]}, out)
		},
	})
}

func TestNameOfAProgramIsMadeANameOfAService(t *testing.T) {
	for path, want := range map[string]string{
		"/usr/bin/orders": "orders", "./My_App.exe": "my-app-exe", "/x/9lives-": "lives", "/x/___": "service",
		"/x/" + strings.Repeat("a", 70): strings.Repeat("a", 63),
	} {
		if got := nameOfProgram(path); got != want || !isServiceName(got) {
			t.Errorf("%s gave %q, want %q", path, got, want)
		}
	}
}
