package synego_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	synego "github.com/lostabaddon/synegobase/sdk-go"
	"github.com/lostabaddon/synegobase/sdk-go/internal/memsidecar"
)

// socketPath is where a socket may be; a test's own folder may be too long for one.
func socketPath(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "synego-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	return filepath.Join(folder, "users.sock")
}

// toldSocket is the environment of a service that runs alone and is told to listen on a socket.
func toldSocket(path string) synego.Option {
	return synego.WithEnv(func(name string) string { return map[string]string{"SOCKET": path}[name] })
}

// runBeside runs users beside a sidecar that names this socket, until the function it returns is called. The addresses
// are those of its Hello.
func runBeside(t *testing.T, path string, options ...synego.Option) (addresses []string, stop func()) {
	t.Helper()
	mesh, err := memsidecar.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mesh.Close() })
	sidecar, err := mesh.Add("users")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	env := func(name string) string {
		return map[string]string{"SOCKET": path, "SYNEGO_SIDECAR": sidecar.Env("SYNEGO_SIDECAR")}[name]
	}
	done := make(chan error, 1)
	go func() {
		err := usersService().Run(ctx, append(options, synego.WithEnv(env), synego.Embedded())...)
		done <- err
		if err != nil {
			cancel() // a service that ends early ends the wait
		}
	}()
	seen, err := sidecar.Wait(ctx, func(seen memsidecar.Seen) bool { return seen.Attached })
	if err != nil {
		t.Fatalf("%s; Run: %v", err, <-done)
	}
	for _, listener := range seen.Hello.GetListeners() {
		addresses = append(addresses, listener.GetAddress())
	}
	return addresses, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// askSocket gets a user over a socket.
func askSocket(t *testing.T, path string) string {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Get("http://users/users/1")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Errorf("answer %d, error %v", response.StatusCode, err)
	}
	return string(text)
}

func TestServiceListensOnTheSocketThatItsParentNames(t *testing.T) {
	path := socketPath(t)
	addresses, stop := runBeside(t, path)
	if text := askSocket(t, path); !strings.Contains(text, "Ada") {
		t.Errorf("answer %s", text)
	}
	if fmt.Sprint(addresses) != "[unix:"+path+"]" {
		t.Errorf("addresses %v", addresses)
	}
	if found, err := os.Stat(path); err != nil || found.Mode().Perm() != 0o600 {
		t.Errorf("file %v, error %v", found, err)
	}
	stop()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket outlived the service: %v", err)
	}
}

func TestAddressInTheCodeGoesBeforeTheSocket(t *testing.T) {
	path := socketPath(t)
	addresses, stop := runBeside(t, path, synego.WithAddress("127.0.0.1:0"))
	defer stop()
	if len(addresses) != 1 || !strings.HasPrefix(addresses[0], "127.0.0.1:") {
		t.Errorf("addresses %v", addresses)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is there: %v", err)
	}
}

func TestGRPCBesideASocketHasAPortOfItsOwn(t *testing.T) {
	path := socketPath(t)
	addresses, stop := runBeside(t, path, synego.WithGRPC(grpc.NewServer(synego.ServerOptions()...)))
	defer stop()
	if len(addresses) != 2 || addresses[0] != "unix:"+path || !strings.HasPrefix(addresses[1], "127.0.0.1:") {
		t.Errorf("addresses %v", addresses)
	}
}

func TestGRPCAloneTakesTheSocket(t *testing.T) {
	path := socketPath(t)
	alone := synego.NewService("alone", synego.Embedded(), synego.WithGRPC(grpc.NewServer(synego.ServerOptions()...)), toldSocket(path))
	ctx, stop := context.WithCancel(t.Context())
	alone.OnStart(func(context.Context) error { stop(); return nil })
	if err := alone.Run(ctx); err != nil || alone.Addr() != "unix:"+path {
		t.Errorf("address %s, error %v", alone.Addr(), err)
	}
}

func TestSocketThatAKilledPredecessorLeftIsReplaced(t *testing.T) {
	path := socketPath(t)
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false) // as a kill leaves it
	if err := left.Close(); err != nil {
		t.Fatal(err)
	}
	_, stop := runBeside(t, path)
	defer stop()
	askSocket(t, path)
}

func TestSocketOnWhichSomebodyAcceptsIsInUseAndStays(t *testing.T) {
	taken := socketPath(t)
	other, err := net.Listen("unix", taken)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	plain := socketPath(t)
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"a socket that is served": taken, "a plain file": plain} {
		before, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		err = synego.NewService("users", synego.Embedded(), toldSocket(path)).Run(t.Context())
		if err == nil || !strings.Contains(err.Error(), syscall.EADDRINUSE.Error()) {
			t.Errorf("%s: error %v", name, err)
		}
		if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
			t.Errorf("%s is gone: %v", name, err)
		}
	}
}

func TestPathThatNoSocketCanHaveIsRefused(t *testing.T) {
	for _, path := range []string{"", "users.sock", "/" + strings.Repeat("x", 107)} {
		t.Setenv("SOCKET", path)
		err := synego.NewService("users", synego.Embedded()).Run(t.Context())
		want := fmt.Sprintf("SOCKET is %q, expected an absolute path of at most 107 bytes", path)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v", err)
		}
	}
}
