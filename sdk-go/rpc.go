package synego

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

const rpcPrefix = "/rpc/"

// RPC answers calls by name: `POST /rpc/NAME`, or `POST /pkg.Service/Method` for a name that begins with a slash. It
// speaks Connect's unary form: JSON, and protobuf when In and Out are protobuf messages. Errors are as in [Handle], in
// Connect's form.
func RPC[In, Out any](s *Service, name string, fn func(context.Context, In) (Out, error)) {
	pattern := "POST " + rpcPath(name)
	h := &handler{byName: true}
	s.add(pattern, h, nil)
	plan, problems := planOf(reflect.TypeFor[In](), h.pattern)
	s.refuse(pattern, problems)
	h.serve = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in, message := newMessage[In]()
		binary := mediaType(r.Header) == contentProto
		if err := readCall(r, plan, &in, message, binary); err != nil {
			s.fail(w, r, err, true)
			return
		}
		out, err := fn(r.Context(), in)
		if err != nil {
			s.fail(w, r, err, true)
			return
		}
		answer, err := encode(out, binary)
		if err != nil {
			s.fail(w, r, err, true)
			return
		}
		w.Header().Set("Content-Type", contentOf(binary))
		s.write(w, r, http.StatusOK, answer)
	})
}

func rpcPath(name string) string {
	if strings.HasPrefix(name, "/") {
		return name
	}
	return rpcPrefix + name
}

// readCall fills the input of a call by name: a protobuf message in either form, or plain JSON.
func readCall[In any](r *http.Request, plan *inputPlan, in *In, message proto.Message, binary bool) error {
	if message == nil && binary {
		return reasonError(ReasonInvalidBody, "content type %s: this call takes %s", contentProto, contentJSON)
	}
	if message == nil {
		return plan.read(r, in)
	}
	text, err := readBody(r)
	if err != nil {
		return err
	}
	if err := decodeMessage(text, message, binary); err != nil {
		return reasonError(ReasonInvalidBody, "body: not a %s", message.ProtoReflect().Descriptor().FullName()).WithCause(err)
	}
	return validate(in)
}

const (
	contentJSON  = "application/json"
	contentProto = "application/proto"
)

func contentOf(binary bool) string {
	if binary {
		return contentProto
	}
	return contentJSON
}

func mediaType(header http.Header) string {
	kind, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil {
		return header.Get("Content-Type")
	}
	return kind
}

// newMessage returns an empty T, and the protobuf message it points to when T is one.
func newMessage[T any]() (T, proto.Message) {
	var value T
	if kind := reflect.TypeFor[T](); kind.Kind() == reflect.Pointer && kind.Implements(reflect.TypeFor[proto.Message]()) {
		value = reflect.New(kind.Elem()).Interface().(T)
		message, _ := any(value).(proto.Message)
		return value, message
	}
	return value, nil
}

func decodeMessage(text []byte, message proto.Message, binary bool) error {
	if binary {
		return proto.Unmarshal(text, message)
	}
	return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(text, message)
}

func encode(value any, binary bool) ([]byte, error) {
	if message, ok := value.(proto.Message); ok {
		if binary {
			return proto.Marshal(message)
		}
		return protojson.Marshal(message)
	}
	if binary {
		return nil, fmt.Errorf("%T is no protobuf message", value)
	}
	return json.Marshal(value)
}

func isMessage(value any) bool {
	_, ok := value.(proto.Message)
	return ok
}

// decodeAnswer reads the answer of a call by name.
func decodeAnswer(response *http.Response, out any, message proto.Message) error {
	text, err := io.ReadAll(io.LimitReader(response.Body, maxBody+1))
	if err != nil {
		return err
	}
	if len(text) > maxBody {
		return fmt.Errorf("more than %d bytes", maxBody)
	}
	if message != nil {
		return decodeMessage(text, message, mediaType(response.Header) == contentProto)
	}
	if _, none := out.(*None); none && len(text) == 0 {
		return nil
	}
	return json.Unmarshal(text, out)
}

// Call calls another service's RPC by name (see [RPC]) and returns its answer. A name that begins with a slash is the
// path of a method of a .proto. With protobuf messages as in and Out (a pointer type) the call is made in binary.
func Call[Out any](ctx context.Context, c *Client, service, name string, in any, options ...CallOption) (Out, error) {
	out, message := newMessage[Out]()
	failed := func(err error) (Out, error) { var none Out; return none, err }
	config := callConfig{timeout: c.callTimeout}
	for _, option := range options {
		option.applyCall(&config)
	}
	if !isServiceName(service) {
		return failed(Errorf(InvalidArgument, "%q is no name of a service", service))
	}
	binary := isMessage(in) && message != nil
	text, err := encode(in, binary)
	if err != nil {
		return failed(Errorf(InvalidArgument, "%T cannot be sent", in).WithCause(err))
	}
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, limitKey{}, config.timeout), config.timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+service+rpcPath(name), bytes.NewReader(text))
	if err != nil {
		return failed(Errorf(InvalidArgument, "%q is no name of a call", name).WithCause(err))
	}
	request.Header.Set("Content-Type", contentOf(binary))
	request.Header.Set("Connect-Protocol-Version", "1")
	response, err := c.http.Do(request)
	if err != nil {
		var own *Error
		if errors.As(err, &own) {
			return failed(own)
		}
		return failed(errorFrom(err))
	}
	if err := ErrorOf(response); err != nil {
		return failed(err)
	}
	defer response.Body.Close()
	if err := decodeAnswer(response, &out, message); err != nil {
		e := Errorf(Internal, "the answer of %s %s cannot be read", service, name).WithCause(err)
		e.Service, e.Blame = service, BlameUpstream
		return failed(e)
	}
	return out, nil
}
