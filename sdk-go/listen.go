package synego

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc"

	synegov1 "github.com/lostabaddon/synegobase/sdk-go/internal/gen/synego/v1"
)

// serving is what listens: HTTP, gRPC or both.
type serving struct {
	service   *Service
	listeners []*synegov1.Listener
	http      *http.Server
	httpOn    net.Listener
	grpc      *grpc.Server
	grpcOn    net.Listener
	failed    chan error
}

// listen takes every port; nothing is served yet.
func (s *Service) listen() (*serving, error) {
	address := s.config.address
	if address == "" {
		port := s.world.getenv("PORT")
		if port == "" {
			port = "0"
		}
		address = net.JoinHostPort("127.0.0.1", port)
	}
	serving := &serving{service: s, failed: make(chan error, 2)}
	hasHTTP := s.config.handler != nil || s.config.grpc == nil || len(s.handlers) > len(s.methods)
	if hasHTTP {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			return nil, fmt.Errorf("service %s: %w", s.name, err)
		}
		serving.httpOn = listener
		serving.listeners = append(serving.listeners, &synegov1.Listener{
			Protocol: synegov1.Protocol_PROTOCOL_HTTP1, Address: reachable(listener), KeepAliveMs: uint32(keepAlive.Milliseconds()),
		})
		serving.http = &http.Server{
			Handler: s, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: keepAlive, MaxHeaderBytes: 64 << 10,
			ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		}
		if host, _, err := net.SplitHostPort(address); err == nil {
			address = net.JoinHostPort(host, "0") // gRPC beside HTTP takes a free port
		}
	}
	if s.config.grpc != nil {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			serving.close()
			return nil, fmt.Errorf("service %s: %w", s.name, err)
		}
		serving.grpc, serving.grpcOn = s.config.grpc, listener
		serving.listeners = append(serving.listeners, &synegov1.Listener{
			Protocol: synegov1.Protocol_PROTOCOL_GRPC, Address: reachable(listener),
		})
	}
	first := serving.listeners[0].GetAddress()
	s.addr.Store(&first)
	return serving, nil
}

// reachable is where the sidecar reaches a listener: loopback when it listens everywhere.
func reachable(listener net.Listener) string {
	addr, ok := listener.Addr().(*net.TCPAddr)
	if ok && addr.IP.IsUnspecified() {
		return fmt.Sprintf("127.0.0.1:%d", addr.Port)
	}
	return listener.Addr().String()
}

func (v *serving) start() {
	serve := func(what string, serve func() error) {
		go func() {
			if err := serve(); err != nil && !errors.Is(err, http.ErrServerClosed) {
				v.failed <- fmt.Errorf("service %s: %s: %w", v.service.name, what, err)
			}
		}()
	}
	var fields []any
	if v.http != nil {
		serve("HTTP", func() error { return v.http.Serve(v.httpOn) })
		fields = append(fields, "http", v.httpOn.Addr().String())
	}
	if v.grpc != nil {
		serve("gRPC", func() error { return v.grpc.Serve(ownedListener{v.grpcOn, v.service}) })
		fields = append(fields, "grpc", v.grpcOn.Addr().String())
	}
	if v.service.world.alone() {
		v.service.log.Info("no sidecar: this service runs alone", fields...)
	} else {
		v.service.log.Debug("listening", fields...)
	}
}

// finish stops taking connections and waits for what runs on them, until ctx ends.
func (v *serving) finish(ctx context.Context) {
	var group sync.WaitGroup
	if v.http != nil {
		group.Go(func() { _ = v.http.Shutdown(ctx) }) // close follows in any case
	}
	if v.grpc != nil {
		group.Go(func() {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			stopped := make(chan struct{})
			go func() { v.grpc.GracefulStop(); close(stopped) }()
			if v.service.countsGRPC.Load() {
				go func() { v.service.untilQuiet(ctx); cancel() }() // else it waits a second for idle connections
			}
			select {
			case <-stopped:
			case <-ctx.Done():
				v.grpc.Stop()
				<-stopped
			}
		})
	}
	group.Wait()
}

// close cuts whatever is left.
func (v *serving) close() {
	if v.http != nil {
		_ = v.http.Close()
	}
	if v.grpc != nil {
		v.grpc.Stop()
	}
	for _, listener := range []net.Listener{v.httpOn, v.grpcOn} {
		if listener != nil {
			_ = listener.Close() // closed already where its server served
		}
	}
}
