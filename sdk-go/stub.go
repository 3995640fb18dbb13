package synego

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

func (c *Client) callUnary(service string) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, in, out any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
		left, bounded := left(ctx, c.callTimeout)
		if bounded {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, left)
			defer cancel()
		}
		ctx, err := c.outgoing(ctx, service)
		if err != nil {
			return err
		}
		var trailer metadata.MD
		var from peer.Peer
		err = invoke(ctx, method, in, out, conn, append(options, grpc.Trailer(&trailer), grpc.Peer(&from))...)
		return grpcError(service, err, trailer, from.Addr != nil)
	}
}

func (c *Client) callStream(service string) grpc.StreamClientInterceptor {
	return func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
		ctx, err := c.outgoing(ctx, service)
		if err != nil {
			return nil, err
		}
		stream, err := open(ctx, desc, conn, method, options...)
		if err != nil {
			return nil, grpcError(service, err, nil, false)
		}
		return &clientStream{ClientStream: stream, service: service}, nil
	}
}

// outgoing adds what a call carries to its metadata.
func (c *Client) outgoing(ctx context.Context, service string) (context.Context, error) {
	if !isServiceName(service) {
		return nil, Errorf(InvalidArgument, "%q is no name of a service", service)
	}
	if _, err := c.world.resolve(service); err != nil {
		return nil, err
	}
	outgoing, _ := metadata.FromOutgoingContext(ctx)
	outgoing = outgoing.Copy()
	if outgoing == nil {
		outgoing = metadata.MD{}
	}
	asked := Priority(metadataGet(outgoing)(headerPriority))
	outgoing.Delete(headerPriority)
	carried(ctx, func(name, value string) {
		if name != headerTraceparent || !isTraceparent(metadataGet(outgoing)(headerTraceparent)) {
			outgoing.Set(name, value)
		}
	})
	if incoming := Priority(metadataGet(outgoing)(headerPriority)); asked != "" && asked.rank() < incoming.rank() {
		outgoing.Set(headerPriority, string(asked))
	}
	return metadata.NewOutgoingContext(ctx, outgoing), nil
}

// clientStream tells failures of a stream as errors of this package.
type clientStream struct {
	grpc.ClientStream
	service string
}

func (s *clientStream) RecvMsg(message any) error {
	err := s.ClientStream.RecvMsg(message)
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return grpcError(s.service, err, s.Trailer(), true)
}

func (s *clientStream) Header() (metadata.MD, error) {
	header, err := s.ClientStream.Header()
	if err != nil {
		err = grpcError(s.service, err, s.Trailer(), true)
	}
	return header, err
}

// grpcError returns a failed call as an *Error; reached says whether it came as far as a connection.
func grpcError(service string, err error, trailer metadata.MD, reached bool) error {
	if err == nil {
		return nil
	}
	var own *Error
	if errors.As(err, &own) {
		return err
	}
	state := status.Convert(err)
	if state.Code() == codes.Unavailable && !reached && len(trailer) == 0 {
		e := reasonError(ReasonSidecarUnreachable, "cannot call %s: nothing answers at the sidecar's outbound", service).WithCause(err)
		e.Service = service
		return e
	}
	return errorOfStatus(service, state, trailer)
}
