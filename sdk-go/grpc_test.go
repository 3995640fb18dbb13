package synego_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	synego "github.com/lostabaddon/synegobase/sdk-go"
	"github.com/lostabaddon/synegobase/sdk-go/synegotest"
)

// echo is a gRPC service with all four kinds of calls.
type echo struct {
	grpc_testing.UnimplementedTestServiceServer
	unary func(context.Context, *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error)
}

func (e *echo) UnaryCall(ctx context.Context, in *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	return e.unary(ctx, in)
}

func (e *echo) StreamingOutputCall(in *grpc_testing.StreamingOutputCallRequest, stream grpc.ServerStreamingServer[grpc_testing.StreamingOutputCallResponse]) error {
	if err := stream.Send(&grpc_testing.StreamingOutputCallResponse{Payload: in.GetPayload()}); err != nil {
		return err
	}
	known, _ := synego.FromContext(stream.Context())
	select {
	case <-known.Draining():
		return synego.Errorf(synego.Unavailable, "watch again elsewhere").WithReason(synego.ReasonDraining)
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
}

func (e *echo) StreamingInputCall(stream grpc.ClientStreamingServer[grpc_testing.StreamingInputCallRequest, grpc_testing.StreamingInputCallResponse]) error {
	size := 0
	for {
		in, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&grpc_testing.StreamingInputCallResponse{AggregatedPayloadSize: int32(size)})
		}
		if err != nil {
			return err
		}
		size += len(in.GetPayload().GetBody())
	}
}

func (e *echo) FullDuplexCall(stream grpc.BidiStreamingServer[grpc_testing.StreamingOutputCallRequest, grpc_testing.StreamingOutputCallResponse]) error {
	for {
		in, err := stream.Recv()
		if err != nil {
			return nil
		}
		if err := stream.Send(&grpc_testing.StreamingOutputCallResponse{Payload: in.GetPayload()}); err != nil {
			return err
		}
	}
}

func echoService(options []grpc.ServerOption, unary func(context.Context, *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error)) *synego.Service {
	server := grpc.NewServer(options...)
	grpc_testing.RegisterTestServiceServer(server, &echo{unary: unary})
	return synego.NewService("echo", synego.WithGRPC(server))
}

func payload(text string) *grpc_testing.Payload { return &grpc_testing.Payload{Body: []byte(text)} }

func TestAllFourKindsOfGRPCCallsGoByName(t *testing.T) {
	mesh := synegotest.Start(t, echoService(synego.ServerOptions(), func(_ context.Context, in *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
		return &grpc_testing.SimpleResponse{Payload: in.GetPayload()}, nil
	}))
	stub := grpc_testing.NewTestServiceClient(mesh.Client().Conn("echo"))
	one, err := stub.UnaryCall(t.Context(), &grpc_testing.SimpleRequest{Payload: payload("a")})
	if err != nil || string(one.GetPayload().GetBody()) != "a" {
		t.Errorf("unary: %v %v", one, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, err := stub.StreamingOutputCall(ctx, &grpc_testing.StreamingOutputCallRequest{Payload: payload("b")})
	if err != nil {
		t.Fatal(err)
	}
	if message, err := out.Recv(); err != nil || string(message.GetPayload().GetBody()) != "b" {
		t.Errorf("server streaming: %v %v", message, err)
	}
	in, err := stub.StreamingInputCall(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := in.Send(&grpc_testing.StreamingInputCallRequest{Payload: payload("cc")}); err != nil {
			t.Fatal(err)
		}
	}
	if sum, err := in.CloseAndRecv(); err != nil || sum.GetAggregatedPayloadSize() != 6 {
		t.Errorf("client streaming: %v %v", sum, err)
	}
	both, err := stub.FullDuplexCall(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"d", "e"} { // each answered before the next is sent
		if err := both.Send(&grpc_testing.StreamingOutputCallRequest{Payload: payload(text)}); err != nil {
			t.Fatal(err)
		}
		if message, err := both.Recv(); err != nil || string(message.GetPayload().GetBody()) != text {
			t.Errorf("both: %v %v", message, err)
		}
	}
	if err := both.CloseSend(); err != nil {
		t.Error(err)
	}
}

func TestErrorOfAGRPCHandlerArrivesWhole(t *testing.T) {
	for name, options := range map[string][]grpc.ServerOption{"own options": synego.ServerOptions(), "foreign server": nil} {
		t.Run(name, func(t *testing.T) {
			mesh := synegotest.Start(t, echoService(options, func(context.Context, *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
				return nil, synego.Errorf(synego.FailedPrecondition, "no user 9").WithReason("unknown_user").WithCause(errors.New("secret"))
			}))
			_, err := grpc_testing.NewTestServiceClient(mesh.Client().Conn("echo")).UnaryCall(t.Context(), &grpc_testing.SimpleRequest{})
			var e *synego.Error
			if !errors.As(err, &e) || e.Code != synego.FailedPrecondition || e.Reason != "unknown_user" || e.Message != "no user 9" || e.Service != "echo" {
				t.Errorf("error %+v", err)
			}
			if options != nil && e.RequestID == "" {
				t.Error("the request's id is missing")
			}
			if status.Code(err) != codes.FailedPrecondition {
				t.Errorf("gRPC sees %s", status.Code(err))
			}
		})
	}
}

func TestForeignErrorAndPanicOfAGRPCHandlerAreNotSent(t *testing.T) {
	for name, unary := range map[string]func(context.Context, *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error){
		"error": func(context.Context, *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
			return nil, errors.New("secret")
		},
		"panic": func(context.Context, *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
			panic("secret")
		},
	} {
		t.Run(name, func(t *testing.T) {
			mesh := synegotest.Start(t, echoService(synego.ServerOptions(), unary))
			_, err := grpc_testing.NewTestServiceClient(mesh.Client().Conn("echo")).UnaryCall(t.Context(), &grpc_testing.SimpleRequest{})
			var e *synego.Error
			if !errors.As(err, &e) || e.Code != synego.Internal || e.Message != "internal error" || e.Blame != synego.BlameUpstream {
				t.Errorf("error %+v", err)
			}
		})
	}
}

func TestContextTravelsThroughGRPCCalls(t *testing.T) {
	for name, options := range map[string][]grpc.ServerOption{"own options": synego.ServerOptions(), "foreign server": nil} {
		t.Run(name, func(t *testing.T) {
			var front *synego.Service
			front = echoService(options, func(ctx context.Context, in *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
				return grpc_testing.NewTestServiceClient(front.Client().Conn("back")).UnaryCall(ctx, in)
			})
			seen := make(chan context.Context, 1)
			mesh := synegotest.Start(t, front, synegotest.StubGRPC("back", func(server grpc.ServiceRegistrar) {
				grpc_testing.RegisterTestServiceServer(server, &echo{unary: func(ctx context.Context, _ *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
					seen <- ctx
					return &grpc_testing.SimpleResponse{}, nil
				}})
			}))
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			ctx = metadata.AppendToOutgoingContext(ctx, "x-request-id", "r-1", "baggage", "tenant=a", "x-synego-priority", "background",
				"traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
			if _, err := grpc_testing.NewTestServiceClient(mesh.Client().Conn("echo")).UnaryCall(ctx, &grpc_testing.SimpleRequest{}); err != nil {
				t.Fatal(err)
			}
			arrived := <-seen
			known, _ := synego.FromContext(arrived)
			if known.RequestID != "r-1" || known.Baggage != "tenant=a" || known.Priority != synego.PriorityBackground ||
				known.Trace.TraceID != "4bf92f3577b34da6a3ce929d0e0e4736" || known.Trace.ParentID == "00f067aa0ba902b7" || known.Protocol != "grpc" {
				t.Errorf("context %+v", known)
			}
			if deadline, ok := arrived.Deadline(); !ok || time.Until(deadline) > 5*time.Second {
				t.Errorf("deadline %v %v", deadline, ok)
			}
		})
	}
}

func TestGRPCStreamIsToldOfTheDrain(t *testing.T) {
	mesh := synegotest.Start(t, echoService(synego.ServerOptions(), nil))
	stream, err := grpc_testing.NewTestServiceClient(mesh.Client().Conn("echo")).
		StreamingOutputCall(t.Context(), &grpc_testing.StreamingOutputCallRequest{Payload: payload("a")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	mesh.Await("echo", func(state synegotest.State) bool { return state.OpenStreams == 1 })
	mesh.Stop("echo")
	_, err = stream.Recv()
	var e *synego.Error
	if !errors.As(err, &e) || e.Reason != synego.ReasonDraining || e.Retry != synego.RetryOtherEndpoint || !e.FromMesh {
		t.Errorf("error %+v", err)
	}
}

func TestGRPCMethodsAreHandlers(t *testing.T) {
	mesh := synegotest.Start(t, echoService(synego.ServerOptions(), nil))
	state := mesh.Await("echo", func(state synegotest.State) bool { return state.Phase == "ready" })
	found := false
	for _, handler := range state.Handlers {
		found = found || handler == "/grpc.testing.TestService/UnaryCall"
		if handler == "/grpc.health.v1.Health/Check" {
			t.Error("health is no handler of the service's own")
		}
	}
	if !found {
		t.Errorf("handlers %v", state.Handlers)
	}
}

func TestMeshAnswersAGRPCCallToAnUnknownService(t *testing.T) {
	mesh := synegotest.Start(t, usersService())
	_, err := grpc_testing.NewTestServiceClient(mesh.Client().Conn("nobody")).UnaryCall(t.Context(), &grpc_testing.SimpleRequest{})
	var e *synego.Error
	if !errors.As(err, &e) || e.Reason != "unknown_service" || !e.FromMesh || e.Code != synego.NotFound {
		t.Errorf("error %+v", err)
	}
}

func TestGRPCCallWithoutASidecarSaysSo(t *testing.T) {
	for reason, env := range map[string]map[string]string{
		synego.ReasonNoSidecar:          {},
		synego.ReasonSidecarUnreachable: {"SYNEGO_OUTBOUND": "http://127.0.0.1:1"},
	} {
		t.Run(reason, func(t *testing.T) {
			client, err := synego.Dial(t.Context(), synego.WithEnv(func(name string) string { return env[name] }))
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			_, err = grpc_testing.NewTestServiceClient(client.Conn("echo")).UnaryCall(t.Context(), &grpc_testing.SimpleRequest{})
			var e *synego.Error
			if !errors.As(err, &e) || e.Reason != reason {
				t.Errorf("error %+v", err)
			}
		})
	}
}
