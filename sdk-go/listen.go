package synego

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
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

// maxSocket is the longest path of a Unix socket, in bytes: what the kernel takes.
const maxSocket = 107

// firstAddress is where the first listener goes, as a network and an address of it: what the author says, else what the
// parent says, else a free port.
func (s *Service) firstAddress() (network, address string, err error) {
	if s.config.address != "" {
		return "tcp", s.config.address, nil
	}
	if s.config.isSet("SOCKET") {
		path := s.world.getenv("SOCKET")
		if !filepath.IsAbs(path) || len(path) > maxSocket {
			return "", "", fmt.Errorf("SOCKET is %q, expected an absolute path of at most %d bytes", path, maxSocket)
		}
		return "unix", path, nil
	}
	port := s.world.getenv("PORT")
	if port == "" {
		port = "0"
	}
	return "tcp", net.JoinHostPort("127.0.0.1", port), nil
}

// take listens on a port or a socket. A socket that a killed predecessor left is replaced, and the new one is left to
// the sidecar alone, which runs as the same user or as root.
func take(network, address string) (net.Listener, error) {
	if network == "unix" && isStale(address) {
		if err := os.Remove(address); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	listener, err := net.Listen(network, address)
	if err != nil || network != "unix" {
		return listener, err
	}
	if err := os.Chmod(address, 0o600); err != nil {
		_ = listener.Close() // nobody has connected yet
		return nil, err
	}
	return listener, nil
}

// isStale says whether a path is a socket on which nobody accepts. A connection to a plain file is refused too, and
// that is not ours to remove.
func isStale(path string) bool {
	found, err := os.Lstat(path)
	if err != nil || found.Mode().Type() != os.ModeSocket {
		return false
	}
	connection, err := net.Dial("unix", path)
	if err == nil {
		_ = connection.Close() // it was opened to ask
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// listen takes every port and socket; nothing is served yet.
func (s *Service) listen() (*serving, error) {
	network, address, err := s.firstAddress()
	if err != nil {
		return nil, fmt.Errorf("service %s: %w", s.name, err)
	}
	serving := &serving{service: s, failed: make(chan error, 2)}
	hasHTTP := s.config.handler != nil || s.config.grpc == nil || len(s.handlers) > len(s.methods)
	if hasHTTP {
		listener, err := take(network, address)
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
		network, address = "tcp", beside(network, address)
	}
	if s.config.grpc != nil {
		listener, err := take(network, address)
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

// beside is where gRPC listens when HTTP has the first address: a free port of the same host.
func beside(network, address string) string {
	if network == "unix" {
		return "127.0.0.1:0"
	}
	if host, _, err := net.SplitHostPort(address); err == nil {
		return net.JoinHostPort(host, "0")
	}
	return address
}

// reachable is where the sidecar reaches a listener: loopback when it listens everywhere.
func reachable(listener net.Listener) string {
	addr, ok := listener.Addr().(*net.TCPAddr)
	if ok && addr.IP.IsUnspecified() {
		return fmt.Sprintf("127.0.0.1:%d", addr.Port)
	}
	return shown(listener)
}

// shown is the address of a listener for people: `unix:PATH` for a socket.
func shown(listener net.Listener) string {
	if addr, ok := listener.Addr().(*net.UnixAddr); ok {
		return "unix:" + addr.Name
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
		fields = append(fields, "http", shown(v.httpOn))
	}
	if v.grpc != nil {
		serve("gRPC", func() error { return v.grpc.Serve(ownedListener{v.grpcOn, v.service}) })
		fields = append(fields, "grpc", shown(v.grpcOn))
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
